<?php
// PHP's own curl with CURLFile. A list in one field has numbered names.
require "job.php";

function ask(string $url, array $options): array
{
    $curl = curl_init($url);
    curl_setopt_array($curl, $options + [CURLOPT_RETURNTRANSFER => true, CURLOPT_NOPROXY => "*"]);
    $content = curl_exec($curl);
    if ($content === false) throw new Exception(curl_error($curl));
    return [curl_getinfo($curl, CURLINFO_RESPONSE_CODE), $content];
}

run(
    PHP_VERSION . " with " . curl_version()["version"],
    function ($mode, $url, $files, $fields) {
        $form = $headers = [];
        foreach ($files as $number => [$field, $path, $name]) {
            $form[count($files) > 1 ? "{$field}[$number]" : $field] = new CURLFile($path, null, $name);
        }
        // What has a type of its own, CURLStringFile, is a file.
        foreach ($fields as [$name, $value]) $form[$name] = $value;
        if ($mode === "stream") $headers[] = "Transfer-Encoding: chunked";
        if ($mode === "expect") $headers[] = "Expect: 100-continue";
        return ask($url, [CURLOPT_POSTFIELDS => $form, CURLOPT_HTTPHEADER => $headers])[0];
    },
    fn ($url) => ask($url, []),
);
