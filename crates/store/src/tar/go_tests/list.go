// Lists what Go's archive/tar sees in each of the archives that are given: an archive a line, the fields of its entries,
// or "error". Headers that hold for all that follow, and labels of volumes, are left out, as docker leaves them out.
package main

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
)

func list(path string) string {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	var entries []string
	reader := tar.NewReader(file)
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return strings.Join(entries, ";")
		}
		if err != nil {
			return "error"
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			return "error"
		}
		if header.Typeflag == tar.TypeXGlobalHeader || header.Typeflag == 'V' {
			continue
		}
		kind, link, major, minor := header.Typeflag, header.Linkname, header.Devmajor, header.Devminor
		switch kind {
		case tar.TypeCont, tar.TypeGNUSparse:
			kind = tar.TypeReg
		}
		if kind != tar.TypeLink && kind != tar.TypeSymlink {
			link = ""
		}
		if kind != tar.TypeChar && kind != tar.TypeBlock {
			major, minor = 0, 0
		}
		entries = append(entries, fmt.Sprintf("%c %s %s %o %d %d %d %d,%d %s", kind, hex.EncodeToString([]byte(header.Name)),
			hex.EncodeToString([]byte(link)), header.Mode&0o7777, header.Uid, header.Gid, header.ModTime.Unix(), major, minor,
			hex.EncodeToString(data)))
	}
}

func main() {
	for _, path := range os.Args[1:] {
		fmt.Println(list(path))
	}
}
