// Go's net/http with mime/multipart: a form in memory, or through a pipe in chunks.
package main

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"time"
)

var client = &http.Client{Transport: &http.Transport{ExpectContinueTimeout: 10 * time.Second}}

func write(form *multipart.Writer, parts []string) error {
	for at := 0; at < len(parts); at += 4 {
		kind, name, second, third := parts[at], parts[at+1], parts[at+2], parts[at+3]
		var part io.Writer
		var err error
		if kind == "file" {
			part, err = form.CreateFormFile(name, third)
		} else if third == "" {
			part, err = form.CreateFormField(name)
		} else {
			header := textproto.MIMEHeader{}
			header.Set("Content-Disposition", fmt.Sprintf(`form-data; name="%s"`, name))
			header.Set("Content-Type", third)
			part, err = form.CreatePart(header)
		}
		if err != nil {
			return err
		}
		var source io.Reader = strings.NewReader(second)
		if kind == "file" {
			file, err := os.Open(second)
			if err != nil {
				return err
			}
			defer file.Close()
			source = file
		}
		if _, err := io.Copy(part, source); err != nil {
			return err
		}
	}
	return form.Close()
}

func send(mode, url string, parts []string) (int, error) {
	var body io.Reader
	var form *multipart.Writer
	if mode == "stream" {
		reader, writer := io.Pipe()
		form = multipart.NewWriter(writer)
		go func() { writer.CloseWithError(write(form, parts)) }()
		body = reader
	} else {
		buffer := &bytes.Buffer{}
		form = multipart.NewWriter(buffer)
		if err := write(form, parts); err != nil {
			return 0, err
		}
		body = buffer
	}
	request, err := http.NewRequest("POST", url, body)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", form.FormDataContentType())
	if mode == "expect" {
		request.Header.Set("Expect", "100-continue")
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

func fetch(url, save string) (int, error) {
	answer, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, os.WriteFile(save, content, 0o600)
}

func main() {
	fmt.Println(strings.TrimPrefix(runtime.Version(), "go"))
	job, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(job), "\n"), "\n") {
		words := strings.Split(line, "\t")
		status, err := send(words[0], words[1], words[4:])
		got := 0
		if err == nil {
			got, err = fetch(words[2], words[3])
		}
		if err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println(status, got)
		}
	}
}
