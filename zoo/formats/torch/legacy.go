package torch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/lathe-ml/lathe/compiler/weights"
)

// legacyMagic opens files before torch 1.6: the pickled integer
// 0x1950a86a20f9469cfc6c.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

const legacyProtocol = 1001

// view resolves the sixth item of a legacy storage reference: the storage is a
// part of another one.
func (m *machine) view(root *Storage, v Value) (*Storage, error) {
	t, ok := v.(*Tuple)
	if !ok || len(t.Items) != 3 {
		return nil, errors.New("a storage view is broken")
	}
	key, ok1 := t.Items[0].(string)
	offset, ok2 := t.Items[1].(int64)
	size, ok3 := t.Items[2].(int64)
	if !ok1 || !ok2 || !ok3 || offset < 0 || size < 0 || offset > root.Elements-size {
		return nil, fmt.Errorf("a storage view leaves its storage %q", root.Key)
	}
	part := m.views[key]
	if part == nil {
		c := *root
		part = &c
		part.Key, part.Elements = key, size
		if m.views == nil {
			m.views, m.parts = map[string]*Storage{}, map[*Storage]storagePart{}
		}
		m.views[key] = part
		m.parts[part] = storagePart{root, offset}
	}
	if p := m.parts[part]; p.root != root || p.offset != offset || part.Elements != size {
		return nil, fmt.Errorf("storage view %q is described in two ways", key)
	}
	return part, nil
}

// storagePart says of which storage, and where, a legacy view is a part.
type storagePart struct {
	root   *Storage
	offset int64 // in elements
}

// openLegacy reads the five pickles at the start and places the storages that
// follow them.
func openLegacy(r io.ReaderAt, size int64, opt Options) (*File, error) {
	m := newMachine(opt)
	pos := int64(0)
	next := func(what string) (Value, error) {
		src := newSource(r, pos, min(size, pos+opt.maxPickle()))
		v, err := m.run(src)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		pos = src.offset()
		return v, nil
	}
	if err := legacyHead(next); err != nil {
		return nil, err
	}
	root, err := next("the object")
	if err != nil {
		return nil, err
	}
	f := &File{Root: root, Format: Legacy, Protocol: m.proto, r: r}
	keys, err := next("the list of storages")
	if err != nil {
		return nil, err
	}
	f.Unknown = m.unknownClasses()
	f.Storages = m.order
	return f, m.placeLegacy(f, keys, pos, size)
}

func legacyHead(next func(string) (Value, error)) error {
	v, err := next("the magic number")
	if err != nil {
		return err
	}
	if z, ok := v.(*big.Int); !ok || z.Cmp(legacyMagic) != 0 {
		return errors.New("the magic number of a torch.save file is wrong")
	}
	if v, err = next("the protocol number"); err != nil {
		return err
	}
	if v != Value(int64(legacyProtocol)) {
		return fmt.Errorf("protocol %v of torch.save is unknown", v)
	}
	if v, err = next("the system information"); err != nil {
		return err
	}
	if d, ok := v.(*Dict); ok {
		if little, ok := d.Get("little_endian"); ok && little != Value(true) {
			return errors.New("file was written by a big-endian machine, which is not supported")
		}
	}
	return nil
}

// placeLegacy finds the bytes of each storage: an element count of eight bytes
// and the elements, in the order of the list of keys.
func (m *machine) placeLegacy(f *File, keys Value, pos, size int64) error {
	l, ok := keys.(*List)
	if !ok {
		return errors.New("the list of storages is not a list")
	}
	for _, k := range l.Items {
		key, _ := k.(string)
		s := m.storages[key]
		if s == nil {
			return fmt.Errorf("storage %q is listed but not used", key)
		}
		if s.Offset >= 0 {
			return fmt.Errorf("storage %q is listed twice", key)
		}
		var head [8]byte
		if size-pos < 8 {
			return fmt.Errorf("file ends before storage %q", key)
		}
		if err := weights.ReadFull(f.r, head[:], pos); err != nil {
			return fmt.Errorf("storage %q: %w", key, err)
		}
		if n := int64(binary.LittleEndian.Uint64(head[:])); n != s.Elements {
			return fmt.Errorf("storage %q has %d elements in its head and %d in the pickle", key, n, s.Elements)
		}
		pos += 8
		if s.Bytes() > size-pos {
			return fmt.Errorf("file ends inside storage %q: %d bytes are missing", key, s.Bytes()-(size-pos))
		}
		f.place(s, pos, m.opt.Base)
		pos += s.Bytes()
	}
	for _, s := range m.order {
		if s.Offset < 0 {
			return fmt.Errorf("storage %q is used but not in the file", s.Key)
		}
	}
	for part, p := range m.parts {
		f.place(part, p.root.Offset-m.opt.Base+p.offset*int64(part.DType.Size()), m.opt.Base)
	}
	return nil
}
