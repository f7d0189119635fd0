<?php
// What the programs for PHP have in common: the job is read, and each case's outcome is printed.
// $send returns a status, or null for what the client does not have; $fetch [status, content].
// What does not know its own version is asked for at its package.
function packaged(string $name): string
{
    $version = shell_exec("dpkg-query --show --showformat='\${Version}' $name") ?? "";
    return preg_replace("/[+-].*/", "", $version);
}

function run(string $version, callable $send, callable $fetch): void
{
    echo $version, "\n";
    foreach (file($_SERVER["argv"][1], FILE_IGNORE_NEW_LINES) as $line) {
        [$mode, $url, $download, $save] = $parts = explode("\t", $line);
        $files = $fields = [];
        foreach (array_chunk(array_slice($parts, 4), 4) as [$kind, $name, $second, $third]) {
            if ($kind === "file") $files[] = [$name, $second, $third];
            else $fields[] = [$name, $second, $third];
        }
        try {
            $status = $send($mode, $url, $files, $fields);
            if ($status === null) { echo "-\n"; continue; }
            [$got, $content] = $fetch($download);
            file_put_contents($save, $content);
            echo "$status $got\n";
        } catch (Throwable $error) {
            echo substr(strtr(get_class($error) . ": " . $error->getMessage(), "\n", " "), 0, 200), "\n";
        }
    }
}
