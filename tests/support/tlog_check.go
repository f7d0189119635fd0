// Holds a log against the code of Go's checksum database (golang.org/x/mod/sumdb), which is also a
// transparency log. It shares nothing with securefs but the specifications.
//
// go run tlog_check.go FOLDER: the folder has vkeys (one a line, for the notes in the same order),
// notes (joined by lines of "=="), for each pair of notes that follow each other the lines of the
// consistency proof in consistency-N, and proofs proof-N (C2SP tlog-proof) under vkey proof-vkey.
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Println("FAIL:", err)
		os.Exit(1)
	}
}

func read(parts ...string) string {
	data, err := os.ReadFile(filepath.Join(parts...))
	must(err)
	return string(data)
}

func hash(text string) (hash tlog.Hash) {
	data, err := base64.StdEncoding.DecodeString(text)
	must(err)
	if copy(hash[:], data) != tlog.HashSize || len(data) != tlog.HashSize {
		must(fmt.Errorf("a hash has %d bytes", len(data)))
	}
	return hash
}

func hashes(lines string) (found []tlog.Hash) {
	for _, line := range strings.Split(lines, "\n") {
		if line != "" {
			found = append(found, hash(line))
		}
	}
	return found
}

func checkpoint(text, vkey string) tlog.Tree {
	verifier, err := note.NewVerifier(vkey)
	must(err)
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	must(err)
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		must(fmt.Errorf("origin %q is not the key's name", lines[0]))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	return tlog.Tree{N: size, Hash: hash(lines[2])}
}

func main() {
	folder := os.Args[1]
	vkeys := strings.Split(strings.TrimSpace(read(folder, "vkeys")), "\n")
	notes := strings.Split(read(folder, "notes"), "==\n")
	var before tlog.Tree
	for number, vkey := range vkeys {
		tree := checkpoint(notes[number], vkey)
		if number > 0 {
			proof := hashes(read(folder, fmt.Sprintf("consistency-%d", number)))
			must(tlog.CheckTree(proof, tree.N, tree.Hash, before.N, before.Hash))
			fmt.Println("consistent:", before.N, tree.N)
		}
		before = tree
	}
	proofs, err := filepath.Glob(filepath.Join(folder, "proof-[0-9]*"))
	must(err)
	for _, name := range proofs {
		head, signed, found := strings.Cut(read(name), "\n\n")
		lines := strings.Split(head, "\n")
		if !found || lines[0] != "c2sp.org/tlog-proof@v1" {
			must(fmt.Errorf("%s is no proof", name))
		}
		record, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
		must(err)
		index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
		must(err)
		tree := checkpoint(signed, strings.TrimSpace(read(folder, "proof-vkey")))
		proof := hashes(strings.Join(lines[3:], "\n"))
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(record)))
		record[0] ^= 1
		if tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(record)) == nil {
			must(fmt.Errorf("another record was accepted"))
		}
		fmt.Println("record:", index, tree.N)
	}
}
