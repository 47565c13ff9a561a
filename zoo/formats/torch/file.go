package torch

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// Format is the container of a file.
type Format uint8

// The containers.
const (
	Zip    Format = iota // since torch 1.6
	Legacy               // before
)

// Options bounds what a reader accepts.
type Options struct {
	// File is the name that storages and messages carry.
	File string
	// Base is added to the offsets of storages: the place in File of the
	// bytes that are read (a DCP file holds several torch.save files).
	Base int64
	// Strict refuses every class outside the allow-list. Without it, unknown
	// classes are carried as opaque objects; classes that can only serve an
	// attack are refused always.
	Strict bool
	// MaxPickle is the largest pickle in bytes; 0 means 256 MiB.
	MaxPickle int64
	// MaxValues is the largest number of values in a pickle; 0 means 16 Mi.
	MaxValues int
}

func (o Options) maxPickle() int64 {
	if o.MaxPickle == 0 {
		return defaultMaxPickle
	}
	return o.MaxPickle
}

// File is an opened file: its values in memory, its tensors as byte ranges.
type File struct {
	Root   Value
	Format Format
	// Protocol is the pickle protocol of the object.
	Protocol int
	// Prefix is the folder inside the zip: "archive", or the stem of the name
	// under which it was saved.
	Prefix string
	// Storages is in the order of first use.
	Storages []*Storage
	// Unknown lists the classes outside the allow-list, sorted.
	Unknown []Class

	records []record
	r       io.ReaderAt
}

// legacyHeadBytes is how files before torch 1.6 begin: protocol 2 and the first
// bytes of the magic number.
var legacyHeadBytes = []byte{0x80, 2, 0x8a, 10, 'l', 0xfc, 0x9c, 'F', 0xf9}

// Detect tells by the first bytes whether a file can be a torch.save file.
func Detect(head []byte) bool {
	return bytes.HasPrefix(head, []byte{'P', 'K', 3, 4}) || bytes.HasPrefix(head, legacyHeadBytes)
}

// Open reads the structure of a file of the given size. r must stay open as
// long as tensors are read.
func Open(r io.ReaderAt, size int64, opt Options) (*File, error) {
	f, err := open(r, size, opt)
	if err != nil {
		if opt.File != "" {
			return nil, fmt.Errorf("%s: %w", opt.File, err)
		}
		return nil, err
	}
	return f, nil
}

func open(r io.ReaderAt, size int64, opt Options) (*File, error) {
	head := make([]byte, min(size, 512))
	if err := weights.ReadFull(r, head, 0); err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{'P', 'K', 3, 4}):
		return openZip(r, size, opt)
	case len(head) >= 2 && head[0] == 0x80 && bytes.HasPrefix(head[2:], legacyHeadBytes[2:]):
		return openLegacy(r, size, opt)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return nil, errors.New("file is a tar of torch 0.1, which is not supported: load and save it with a torch of 1.0 to 1.5 first")
	case size < 4:
		return nil, fmt.Errorf("file of %d bytes is too short for a torch.save file", size)
	}
	return nil, errors.New("file is neither a zip nor a legacy file of torch.save")
}

func openZip(r io.ReaderAt, size int64, opt Options) (*File, error) {
	records, err := readZip(r, size)
	if err != nil {
		return nil, err
	}
	f := &File{Format: Zip, records: records, r: r}
	if f.Prefix, err = commonPrefix(records); err != nil {
		return nil, err
	}
	byName := make(map[string]*record, len(records))
	for i := range records {
		byName[records[i].name] = &records[i]
	}
	if byName["constants.pkl"] != nil {
		return nil, errors.New("file is a TorchScript program, not a checkpoint: save its state_dict with torch.save")
	}
	if rec := byName["byteorder"]; rec != nil {
		b, err := rec.load(r, 64)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(b)) != "little" {
			return nil, fmt.Errorf("file has the byte order %q, which is not supported", b)
		}
	}
	rec := byName["data.pkl"]
	if rec == nil {
		return nil, errors.New("zip has no data.pkl: it is not a torch.save file")
	}
	data, err := rec.load(r, opt.maxPickle())
	if err != nil {
		return nil, err
	}
	m := newMachine(opt)
	src := newSource(bytes.NewReader(data), 0, int64(len(data)))
	if f.Root, err = m.run(src); err != nil {
		return nil, err
	}
	if src.left() > 0 {
		return nil, fmt.Errorf("data.pkl goes on for %d bytes after its end", src.left())
	}
	f.Protocol, f.Storages, f.Unknown = m.proto, m.order, m.unknownClasses()
	return f, f.placeZip(byName, opt.Base)
}

// placeZip finds the record of each storage.
func (f *File) placeZip(byName map[string]*record, base int64) error {
	for _, s := range f.Storages {
		rec := byName["data/"+s.Key]
		switch {
		case rec == nil:
			return fmt.Errorf("storage %q is used but not in the file", s.Key)
		case rec.method != methodStored:
			return fmt.Errorf("storage %q is compressed, which torch.save never does", s.Key)
		case rec.size < s.Bytes():
			return fmt.Errorf("storage %q has %d bytes where %d are needed", s.Key, rec.size, s.Bytes())
		}
		f.place(s, rec.offset, base)
		s.Sum, s.HasSum = rec.crc, rec.size == s.Bytes()
	}
	return nil
}

// place says where in the file a storage lies.
func (f *File) place(s *Storage, offset, base int64) {
	s.Offset = base + offset
	s.Data = io.NewSectionReader(f.r, offset, s.Bytes())
}

// OpenIn opens a file of a store. Close the returned closer when no more
// tensors are read.
func OpenIn(s weights.Store, name string, opt Options) (*File, io.Closer, error) {
	f, err := s.Open(name)
	if err != nil {
		return nil, nil, err
	}
	opt.File = name
	t, err := Open(f, f.Size(), opt)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return t, f, nil
}

// Load reads the values of a file whose tensors are not needed, or are read
// later through weights.Tensor (Tensor.Ref): it leaves no file open, and
// Storage.Data is nil.
func Load(s weights.Store, name string, opt Options) (*File, error) {
	f, c, err := OpenIn(s, name, opt)
	if err != nil {
		return nil, err
	}
	for _, st := range f.Storages {
		st.Data = nil
	}
	f.r = nil
	return f, c.Close()
}

// Unpickle reads one bare pickle, such as the .metadata of a distributed
// checkpoint. Storages in it have no bytes.
func Unpickle(data []byte, opt Options) (Value, error) {
	src := newSource(bytes.NewReader(data), 0, int64(len(data)))
	v, err := newMachine(opt).run(src)
	if err == nil && src.left() > 0 {
		err = fmt.Errorf("pickle goes on for %d bytes after its end", src.left())
	}
	return v, err
}

// VerifySums reads every record and compares its CRC-32, which torch.load does
// not. Legacy files carry none.
func (f *File) VerifySums() error {
	buf := make([]byte, 1<<20)
	for i := range f.records {
		rec := &f.records[i]
		if rec.method != methodStored {
			if _, err := rec.load(f.r, defaultMaxPickle); err != nil {
				return err
			}
			continue
		}
		sum := uint32(0)
		for pos := int64(0); pos < rec.size; {
			b := buf[:min(rec.size-pos, int64(len(buf)))]
			if err := weights.ReadFull(f.r, b, rec.offset+pos); err != nil {
				return fmt.Errorf("zip entry %q: %w", rec.full, err)
			}
			sum = crc32.Update(sum, crc32.IEEETable, b)
			pos += int64(len(b))
		}
		if sum != rec.crc {
			return fmt.Errorf("zip entry %q is damaged: its CRC-32 does not match", rec.full)
		}
	}
	return nil
}
