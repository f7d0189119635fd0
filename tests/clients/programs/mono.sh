# Compiles the program for Mono into the folder that it runs in, and runs it.
set -e
mcs -langversion:latest -r:System.Net.Http.dll -out:mono.exe "$(dirname "$0")/HttpClient.cs"
exec mono mono.exe "$1"
