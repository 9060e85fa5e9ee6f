// A second verifier of the log, in a page of Go, on golang.org/x/mod/sumdb and nothing of ours.
//
//	verify POLICY < folders        one folder a line; answers "ok" or "bad" and the folder, a line each
//
// A folder holds what an agency keeps: checkpoint, tile/..., old (a checkpoint kept before), proof (a tlog-proof).  It is
// ok if the log signed the checkpoint, a quorum of witnesses cosigned it, its root is that of the entries and of the
// tiles, the old checkpoint's tree is a beginning of it, and the proof's leaf is where it says.
package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A witness checks cosignature/v1 lines (type 0x04), which sumdb/note does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }
func (w witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(w.key, []byte(signed), sig[8:])
}

type policy struct {
	log       note.Verifier
	witnesses []witness
	quorum    int
}

func readPolicy(path string) (p policy) {
	text, err := os.ReadFile(path)
	must(err)
	for _, line := range strings.Split(string(text), "\n") {
		switch words := strings.Fields(line); {
		case len(words) == 2 && words[0] == "log":
			p.log, err = note.NewVerifier(words[1])
			must(err)
		case len(words) == 3 && words[0] == "witness":
			parts := strings.SplitN(words[2], "+", 3)
			key, err := base64.StdEncoding.DecodeString(parts[2])
			must(err)
			sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
			p.witnesses = append(p.witnesses, witness{parts[0], binary.BigEndian.Uint32(sum[:]), key[1:]})
		case len(words) > 3 && words[0] == "group":
			p.quorum, err = strconv.Atoi(words[2])
			must(err)
		}
	}
	return p
}

// open gives the tree of a note that the log signed, and a quorum where that is asked for.
func (p policy) open(text []byte, quorum bool) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(p.log))
	if err != nil {
		return tlog.Tree{}, err
	}
	seen := 0
	for _, w := range p.witnesses {
		if n, err := note.Open(text, note.VerifierList(w)); err == nil && len(n.Sigs) == 1 {
			seen++
		}
	}
	if quorum && seen < p.quorum {
		return tlog.Tree{}, errors.New("no quorum")
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != p.log.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// folder reads C2SP tiles: those of sumdb with the height left out of the path.
type folder string

func (folder) Height() int                     { return 8 }
func (folder) SaveTiles([]tlog.Tile, [][]byte) {}
func (f folder) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		read, err := os.ReadFile(filepath.Join(string(f), strings.Replace(path, "/data/", "/entries/", 1)))
		if err != nil {
			return nil, err
		}
		data = append(data, read)
	}
	return data, nil
}

// rebuild hashes the entries anew: every hash of the tree as sumdb numbers them, and the root.
func (f folder) rebuild(size int64) (stored []tlog.Hash, root tlog.Hash, err error) {
	read := tlog.HashReaderFunc(func(indexes []int64) (found []tlog.Hash, err error) {
		for _, at := range indexes {
			found = append(found, stored[at])
		}
		return found, nil
	})
	for first := int64(0); first < size; first += 256 {
		width := int(size - first)
		if width > 256 {
			width = 256
		}
		bundles, err := f.ReadTiles([]tlog.Tile{{H: 8, L: -1, N: first / 256, W: width}})
		if err != nil {
			return nil, root, err
		}
		rest := bundles[0]
		for n := 0; n < width; n++ {
			if len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
				return nil, root, errors.New("a bundle ends early")
			}
			end := 2 + int(binary.BigEndian.Uint16(rest))
			hashes, err := tlog.StoredHashesForRecordHash(first+int64(n), tlog.RecordHash(rest[2:end]), read)
			if err != nil {
				return nil, root, err
			}
			stored, rest = append(stored, hashes...), rest[end:]
		}
		if len(rest) != 0 {
			return nil, root, errors.New("a bundle goes on")
		}
	}
	root, err = tlog.TreeHash(size, read)
	return stored, root, err
}

func (p policy) verify(f folder) error {
	text, err := os.ReadFile(filepath.Join(string(f), "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := p.open(text, true)
	if err != nil {
		return err
	}
	stored, root, err := f.rebuild(tree.N)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the entries have another root: %v", err)
	}
	tiles := tlog.TileHashReader(tree, f)
	var every []int64 // each hash of each tile: held to the entries, as the reader alone lets some altered tiles pass
	for level := 0; tree.N>>(8*level) > 0; level++ {
		for at := int64(0); at < tree.N>>(8*level); at++ {
			every = append(every, tlog.StoredHashIndex(8*level, at))
		}
	}
	hashes, err := tiles.ReadHashes(every)
	if err != nil {
		return err
	}
	for at, index := range every {
		if hashes[at] != stored[index] {
			return errors.New("a tile is not that of the entries")
		}
	}
	if text, err = os.ReadFile(filepath.Join(string(f), "old")); err != nil {
		return err
	}
	old, err := p.open(text, false)
	if err != nil {
		return err
	}
	if old.N > 0 {
		grown, err := tlog.ProveTree(tree.N, old.N, tiles)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(grown, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return err
		}
	}
	if text, err = os.ReadFile(filepath.Join(string(f), "proof")); err != nil {
		return err
	}
	return p.included(text)
}

// included checks a tlog-proof whose extra data is the leaf.
func (p policy) included(text []byte) error {
	parts := bytes.SplitN(text, []byte("\n\n"), 2)
	lines := strings.Split(string(parts[0]), "\n")
	if len(parts) != 2 || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("no proof")
	}
	tree, err := p.open(parts[1], true)
	if err != nil {
		return err
	}
	leaf, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		path = append(path, hash)
	}
	return tlog.CheckRecord(path, tree.N, tree.Hash, index, tlog.RecordHash(leaf))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

func main() {
	trusted := readPolicy(os.Args[1])
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		verdict := "ok"
		if err := trusted.verify(folder(input.Text())); err != nil {
			verdict = "bad"
			fmt.Fprintln(os.Stderr, input.Text(), err)
		}
		fmt.Println(verdict, input.Text())
	}
}
