<?php
// Guzzle, which sends in chunks if it can't tell the length of a stream.
require "GuzzleHttp/autoload.php";
require "job.php";

use GuzzleHttp\Client;
use GuzzleHttp\Psr7\PumpStream;

$client = new Client(["http_errors" => false, "proxy" => ""]);
run(
    packaged("php-guzzlehttp-guzzle"),
    function ($mode, $url, $files, $fields) use ($client) {
        $form = [];
        foreach ($files as [$field, $path, $name]) {
            $file = fopen($path, "rb");
            $read = fn ($length) => feof($file) ? false : fread($file, $length);
            $contents = $mode === "stream" ? new PumpStream($read) : $file;
            $form[] = ["name" => $field, "contents" => $contents, "filename" => $name];
        }
        foreach ($fields as [$name, $value, $type]) {
            $headers = $type ? ["Content-Type" => $type] : [];
            $form[] = ["name" => $name, "contents" => $value, "headers" => $headers];
        }
        $options = ["multipart" => $form, "expect" => $mode === "expect"];
        return $client->post($url, $options)->getStatusCode();
    },
    function ($url) use ($client) {
        $answer = $client->get($url);
        return [$answer->getStatusCode(), (string) $answer->getBody()];
    },
);
