package torch

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// The signatures and sizes of the zip format (APPNOTE.TXT 4.3).
const (
	sigLocal     = 0x04034b50
	sigCentral   = 0x02014b50
	sigEnd       = 0x06054b50
	sigEnd64     = 0x06064b50
	sigLocator64 = 0x07064b50

	lenLocal     = 30
	lenCentral   = 46
	lenEnd       = 22
	lenEnd64     = 56
	lenLocator64 = 20

	methodStored  = 0
	methodDeflate = 8
	extraZip64    = 1
	max32         = 0xffffffff
	max16         = 0xffff
)

// maxDirectory bounds the central directory: about four million entries.
const maxDirectory = 512 << 20

// record is an entry of the zip.
type record struct {
	name   string // without the prefix folder
	full   string
	header int64 // where its local header begins
	offset int64 // where its payload begins
	stored int64 // bytes in the file
	size   int64 // bytes of content
	crc    uint32
	method uint16
}

// readZip lists the entries of a zip, with all places checked: names are
// relative and distinct, ranges are inside the file and apart.
func readZip(r io.ReaderAt, size int64) ([]record, error) {
	start, length, count, err := findDirectory(r, size)
	if err != nil {
		return nil, err
	}
	dir := make([]byte, length)
	if err := weights.ReadFull(r, dir, start); err != nil {
		return nil, fmt.Errorf("read the zip directory: %w", err)
	}
	records := make([]record, 0, min(count, uint64(length/lenCentral)))
	names := map[string]bool{}
	for len(dir) > 0 {
		rec, rest, err := parseEntry(dir)
		if err != nil {
			return nil, err
		}
		dir = rest
		if names[rec.full] {
			return nil, fmt.Errorf("zip holds the entry %q twice", rec.full)
		}
		names[rec.full] = true
		records = append(records, rec)
	}
	if uint64(len(records)) != count {
		return nil, fmt.Errorf("zip states %d entries and lists %d", count, len(records))
	}
	return records, placeRecords(r, records, start)
}

// findEnd finds the record at the end and its place, which is where the
// directory ends at the latest. Only a comment, which torch does not write,
// makes a search necessary.
func findEnd(r io.ReaderAt, size int64) ([]byte, int64, error) {
	for _, most := range []int64{lenEnd, lenEnd + max16} {
		n := min(size, most)
		tail := make([]byte, n)
		if err := weights.ReadFull(r, tail, size-n); err != nil {
			return nil, 0, err
		}
		at := bytes.LastIndex(tail, []byte{'P', 'K', 5, 6})
		for at >= 0 && (len(tail)-at < lenEnd || at+lenEnd+int(binary.LittleEndian.Uint16(tail[at+20:])) != len(tail)) {
			at = bytes.LastIndex(tail[:at], []byte{'P', 'K', 5, 6})
		}
		if at >= 0 {
			return tail[at:], size - n + int64(at), nil
		}
	}
	return nil, 0, errors.New("zip has no directory at its end: the file is truncated")
}

// findDirectory locates the central directory by the record at the end.
func findDirectory(r io.ReaderAt, size int64) (start, length int64, count uint64, err error) {
	end, limit, err := findEnd(r, size)
	if err != nil {
		return 0, 0, 0, err
	}
	le := binary.LittleEndian
	count = uint64(le.Uint16(end[10:]))
	length = int64(le.Uint32(end[12:]))
	start = int64(le.Uint32(end[16:]))
	if le.Uint16(end[4:]) != 0 && le.Uint16(end[4:]) != max16 {
		return 0, 0, 0, errors.New("zip is split over several files, which is not supported")
	}
	if count == max16 || length == max32 || start == max32 {
		if start, length, count, limit, err = findDirectory64(r, limit, start, length, count); err != nil {
			return 0, 0, 0, err
		}
	}
	if start < 0 || length < 0 || start > limit || length > limit-start {
		return 0, 0, 0, errors.New("the zip directory is outside the file")
	}
	if length > maxDirectory {
		return 0, 0, 0, fmt.Errorf("the zip directory has %d bytes, more than the %d that are accepted", length, maxDirectory)
	}
	return start, length, count, nil
}

// findDirectory64 reads the zip64 record, if there is one before limit.
func findDirectory64(r io.ReaderAt, limit, start, length int64, count uint64) (int64, int64, uint64, int64, error) {
	le := binary.LittleEndian
	var loc [lenLocator64]byte
	if limit < lenLocator64 {
		return start, length, count, limit, nil
	}
	if err := weights.ReadFull(r, loc[:], limit-lenLocator64); err != nil {
		return 0, 0, 0, 0, err
	}
	if le.Uint32(loc[:]) != sigLocator64 {
		return start, length, count, limit, nil
	}
	at := int64(le.Uint64(loc[8:]))
	if at < 0 || at > limit-lenLocator64-lenEnd64 {
		return 0, 0, 0, 0, errors.New("the zip64 directory record is outside the file")
	}
	var end [lenEnd64]byte
	if err := weights.ReadFull(r, end[:], at); err != nil {
		return 0, 0, 0, 0, err
	}
	if le.Uint32(end[:]) != sigEnd64 {
		return 0, 0, 0, 0, errors.New("the zip64 directory record is broken")
	}
	return int64(le.Uint64(end[48:])), int64(le.Uint64(end[40:])), le.Uint64(end[32:]), at, nil
}

// parseEntry reads one entry of the central directory.
func parseEntry(b []byte) (record, []byte, error) {
	le := binary.LittleEndian
	if len(b) < lenCentral || le.Uint32(b) != sigCentral {
		return record{}, nil, errors.New("the zip directory is broken")
	}
	n, x, c := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), int(le.Uint16(b[32:]))
	if len(b) < lenCentral+n+x+c {
		return record{}, nil, errors.New("the zip directory is broken")
	}
	rec := record{
		full:   string(b[lenCentral : lenCentral+n]),
		method: le.Uint16(b[10:]),
		crc:    le.Uint32(b[16:]),
		stored: int64(le.Uint32(b[20:])),
		size:   int64(le.Uint32(b[24:])),
		header: int64(le.Uint32(b[42:])),
	}
	if le.Uint16(b[8:])&1 != 0 {
		return rec, nil, fmt.Errorf("zip entry %q is encrypted", rec.full)
	}
	if err := rec.wide(b[lenCentral+n : lenCentral+n+x]); err != nil {
		return rec, nil, err
	}
	if rec.stored < 0 || rec.size < 0 || rec.header < 0 {
		return rec, nil, fmt.Errorf("zip entry %q has a size beyond all bounds", rec.full)
	}
	return rec, b[lenCentral+n+x+c:], rec.checkName()
}

// wide takes the 64-bit sizes out of the extra fields.
func (r *record) wide(extra []byte) error {
	le := binary.LittleEndian
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return nil // padding that is no field: torch and zipalign write it
		}
		if id == extraZip64 {
			f := extra[:n]
			for _, v := range []*int64{&r.size, &r.stored, &r.header} {
				if *v != max32 {
					continue
				}
				if len(f) < 8 {
					return fmt.Errorf("zip entry %q lacks its 64-bit sizes", r.full)
				}
				*v = int64(le.Uint64(f))
				f = f[8:]
			}
		}
		extra = extra[n:]
	}
	return nil
}

// checkName refuses names that would leave a folder when unpacked, and takes
// off the prefix.
func (r *record) checkName() error {
	n := r.full
	if n == "" || strings.HasPrefix(n, "/") || strings.ContainsAny(n, "\\\x00") || slices.Contains(strings.Split(n, "/"), "..") {
		return fmt.Errorf("zip entry %q has a name that leaves its folder", n)
	}
	if r.method != methodStored && r.method != methodDeflate {
		return fmt.Errorf("zip entry %q is compressed by method %d, which is not supported", n, r.method)
	}
	if r.method == methodStored && r.stored != r.size {
		return fmt.Errorf("zip entry %q is stored, but its two sizes differ", n)
	}
	return nil
}

// placeRecords finds the payloads behind the local headers and refuses ranges
// that overlap or leave the part of the file before the directory.
func placeRecords(r io.ReaderAt, records []record, limit int64) error {
	order := make([]int, len(records))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch x, y := records[a].header, records[b].header; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	le := binary.LittleEndian
	var b [lenLocal]byte
	end := int64(0)
	for _, i := range order {
		rec := &records[i]
		if rec.header < end {
			return fmt.Errorf("zip entry %q overlaps the one before it", rec.full)
		}
		if rec.header > limit-lenLocal {
			return fmt.Errorf("zip entry %q is outside the file", rec.full)
		}
		if err := weights.ReadFull(r, b[:], rec.header); err != nil {
			return err
		}
		if le.Uint32(b[:]) != sigLocal {
			return fmt.Errorf("zip entry %q has no header where the directory says", rec.full)
		}
		nameLen := int64(le.Uint16(b[26:]))
		if nameLen != int64(len(rec.full)) {
			return fmt.Errorf("zip entry %q has another name in its header", rec.full)
		}
		rec.offset = rec.header + lenLocal + nameLen + int64(le.Uint16(b[28:]))
		if rec.offset > limit || rec.stored > limit-rec.offset {
			return fmt.Errorf("zip entry %q ends outside the file", rec.full)
		}
		end = rec.offset + rec.stored
	}
	return nil
}

// maxRatio is more than deflate can reach on anything but a bomb.
const maxRatio = 200

// load reads a small record whole.
func (r *record) load(f io.ReaderAt, limit int64) ([]byte, error) {
	if r.size > limit {
		return nil, fmt.Errorf("zip entry %q has %d bytes, more than the %d that are accepted", r.full, r.size, limit)
	}
	if r.method == methodDeflate && r.size > 1<<16 && r.size/maxRatio > r.stored {
		return nil, fmt.Errorf("zip entry %q expands from %d to %d bytes, which no real file does", r.full, r.stored, r.size)
	}
	b := make([]byte, r.stored)
	if err := weights.ReadFull(f, b, r.offset); err != nil {
		return nil, fmt.Errorf("zip entry %q: %w", r.full, err)
	}
	if r.method == methodDeflate {
		z := flate.NewReader(bytes.NewReader(b))
		out, err := io.ReadAll(io.LimitReader(z, r.size+1))
		if err != nil || int64(len(out)) != r.size {
			return nil, fmt.Errorf("zip entry %q cannot be decompressed to its size", r.full)
		}
		b = out
	}
	if crc32.ChecksumIEEE(b) != r.crc {
		return nil, fmt.Errorf("zip entry %q is damaged: its CRC-32 does not match", r.full)
	}
	return b, nil
}

// commonPrefix takes off the folder that all entries share; torch requires one.
func commonPrefix(records []record) (string, error) {
	prefix := ""
	for i := range records {
		first, rest, ok := strings.Cut(records[i].full, "/")
		if !ok || path.Clean(records[i].full) != strings.TrimSuffix(records[i].full, "/") {
			return "", fmt.Errorf("zip entry %q is not in a folder, as those of torch.save are", records[i].full)
		}
		if i > 0 && first != prefix {
			return "", fmt.Errorf("zip entries are in the folders %q and %q; torch.save uses one", prefix, first)
		}
		prefix = first
		records[i].name = rest
	}
	return prefix, nil
}
