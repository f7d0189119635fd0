<?php
// Symfony's HttpClient with FormDataPart of its Mime.
require "Symfony/Component/HttpClient/autoload.php";
require "Symfony/Component/Mime/autoload.php";
require "job.php";

use Symfony\Component\HttpClient\HttpClient;
use Symfony\Component\Mime\Part\DataPart;
use Symfony\Component\Mime\Part\Multipart\FormDataPart;
use Symfony\Component\Mime\Part\TextPart;

$client = HttpClient::create(["no_proxy" => "*"]);
run(
    packaged("php-symfony-http-client"),
    function ($mode, $url, $files, $fields) use ($client) {
        if ($mode === "expect") return null;
        $parts = [];
        foreach ($files as [$field, $path, $name]) {
            $part = new DataPart(fopen($path, "rb"), $name);
            $parts[] = [$field => $part];
        }
        foreach ($fields as [$name, $value, $type]) {
            $parts[] = [$name => $type ? new TextPart($value, "utf-8", explode("/", $type)[1]) : $value];
        }
        $form = new FormDataPart($parts);
        $options = ["headers" => $form->getPreparedHeaders()->toArray()];
        $options["body"] = $mode === "stream" ? $form->bodyToIterable() : $form->bodyToString();
        return $client->request("POST", $url, $options)->getStatusCode();
    },
    function ($url) use ($client) {
        $answer = $client->request("GET", $url);
        return [$answer->getStatusCode(), $answer->getContent()];
    },
);
