package onnxfile

import (
	"crypto/sha1"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lathe-ml/lathe/compiler/onnxfile/pb"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// place is where a tensor's external data lies.
type place struct {
	location string
	offset   int64
	length   int64 // -1: to be taken from the shape
	checksum string
}

func placeOf(p *pb.TensorProto) (place, error) {
	at := place{length: -1}
	for _, e := range p.ExternalData {
		var err error
		switch e.Key {
		case "location":
			at.location = e.Value
		case "offset":
			at.offset, err = strconv.ParseInt(e.Value, 10, 64)
		case "length":
			at.length, err = strconv.ParseInt(e.Value, 10, 64)
		case "checksum":
			at.checksum = e.Value
		}
		if err != nil || at.offset < 0 || at.length < -1 {
			return at, bad("external data has the %s %q", e.Key, e.Value)
		}
	}
	if at.location == "" {
		return at, bad("external data has no location")
	}
	return at, nil
}

// external gives the bytes of a tensor that lies in another file.
func (r *reader) external(p *pb.TensorProto, d tensor.DType, n int) ([]byte, error) {
	if d == tensor.String {
		return nil, bad("strings cannot be external data")
	}
	at, err := placeOf(p)
	if err != nil {
		return nil, err
	}
	if at.length < 0 {
		at.length = int64(d.Bytes(n))
	}
	if at.length != int64(d.Bytes(n)) {
		return nil, bad("external data has %d bytes, %s of %d elements needs %d", at.length, d.ONNX(), n, d.Bytes(n))
	}
	file, err := r.externalFile(at.location)
	if err != nil {
		return nil, err
	}
	size := int64(len(file))
	if at.offset > size || at.length > size-at.offset {
		return nil, bad("external data file %q has %d bytes, the tensor lies at %d and is %d long", at.location, size, at.offset, at.length)
	}
	b := file[at.offset : at.offset+at.length : at.offset+at.length]
	if at.checksum != "" && !r.opt.SkipChecksums {
		if got := r.sha1Of(at.location, file); got != strings.ToLower(at.checksum) {
			return nil, bad("external data file %q has the checksum %s, the model wants %s", at.location, got, at.checksum)
		}
	}
	return b, nil
}

// externalFile maps a file of the model's folder; no path leads out of it, not
// even through a symbolic link.
func (r *reader) externalFile(location string) ([]byte, error) {
	if b, ok := r.ext[location]; ok {
		return b, nil
	}
	if r.opt.Dir == "" {
		return nil, bad("external data %q belongs to a model that was read from no folder", location)
	}
	local := filepath.FromSlash(location)
	if !filepath.IsLocal(local) || strings.Contains(location, `\`) {
		return nil, bad("external data %q lies outside the model's folder", location).
			Hint("copy the data file beside the model")
	}
	root, err := os.OpenRoot(r.opt.Dir)
	if err != nil {
		return nil, bad("the model's folder cannot be opened: %w", err)
	}
	defer root.Close()
	mp, err := openMapped(folder{root.Stat, root.Open}, local)
	if err != nil {
		f := prefixed(err, "external data")
		if strings.Contains(err.Error(), "escapes") {
			return nil, bad("external data %q lies outside the model's folder", location).
				Hint("copy the data file beside the model")
		}
		return nil, f
	}
	r.m.maps = append(r.m.maps, mp)
	r.ext[location] = mp.data
	return mp.data, nil
}

// sha1Of is the digest of a whole file, as ONNX's checksum key wants it.
func (r *reader) sha1Of(location string, file []byte) string {
	s, ok := r.sums[location]
	if !ok {
		sum := sha1.Sum(file)
		s = hex.EncodeToString(sum[:])
		r.sums[location] = s
	}
	return s
}
