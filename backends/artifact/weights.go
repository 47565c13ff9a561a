package artifact

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/program"
)

// WriteWeights writes the constants at their planned offsets, each made when
// its turn comes.
func WriteWeights(p *program.Program, dir string) error {
	f, err := os.Create(filepath.Join(dir, WeightsFile))
	if err != nil {
		return noRoom(p, err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := stream(p, w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return noRoom(p, err)
	}
	if err := f.Close(); err != nil {
		return noRoom(p, err)
	}
	return nil
}

// noRoom tells that weights could not be written. The folder has a temporary
// name, which would say nothing.
func noRoom(p *program.Program, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fault.New(fault.Usage, "cannot write %s of %d bytes: %w", WeightsFile, p.Weights, err).Hint("choose a place with space with -o")
}

// Share lays the constants of several programs into one weights file: those
// with the same bytes lie there once. The program that it gives has them all.
func Share(ps []*program.Program) (*program.Program, error) {
	if len(ps) == 1 {
		return ps[0], nil
	}
	type content struct {
		size int
		sum  [sha256.Size]byte
	}
	at := map[content]int{}
	all := &program.Program{}
	for _, p := range ps {
		for _, c := range p.Consts {
			b, err := contents(c)
			if err != nil {
				return nil, err
			}
			k := content{len(b), sha256.Sum256(b)}
			off, known := at[k]
			if !known {
				off = all.Weights
				at[k] = off
				all.Weights += program.Pad(len(b))
				all.Consts = append(all.Consts, c)
			}
			c.Buf.Offset = off
		}
	}
	return all, nil
}

func stream(p *program.Program, w io.Writer) error {
	var zero [4096]byte
	at := 0
	fill := func(to int) error {
		for at < to {
			n, err := w.Write(zero[:min(to-at, len(zero))])
			if err != nil {
				return noRoom(p, err)
			}
			at += n
		}
		return nil
	}
	for _, c := range p.Consts {
		b, err := contents(c)
		if err != nil {
			return err
		}
		if err := fill(c.Buf.Offset); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return noRoom(p, err)
		}
		at += len(b)
	}
	return fill(p.Weights)
}

func contents(c *program.Constant) ([]byte, error) {
	b, err := c.Fill()
	if err != nil {
		return nil, fmt.Errorf("weights of %s: %w", c.Buf.Name, err)
	}
	if len(b) != c.Buf.Size() {
		return nil, fmt.Errorf("weights of %s: %d bytes, planned %d", c.Buf.Name, len(b), c.Buf.Size())
	}
	return b, nil
}

// LoadWeights fills memory of the planned size with a program's constants.
func LoadWeights(p *program.Program, mem []byte) error {
	for _, c := range p.Consts {
		b, err := contents(c)
		if err != nil {
			return err
		}
		copy(mem[c.Buf.Offset:], b)
	}
	return nil
}

// ReadWeights reads an artifact's weights into memory of the planned size.
func ReadWeights(dir string, mem []byte) error {
	path := filepath.Join(dir, WeightsFile)
	f, err := os.Open(path)
	if err != nil {
		return fault.New(fault.BadModel, "the artifact's weights cannot be read: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fault.New(fault.BadModel, "the artifact's weights cannot be read: %w", err)
	}
	if st.Size() != int64(len(mem)) {
		return fault.New(fault.BadModel, "the weights have %d bytes, the manifest says %d", st.Size(), len(mem)).InFile(path)
	}
	if _, err := io.ReadFull(f, mem); err != nil {
		return fault.New(fault.BadModel, "the artifact's weights cannot be read: %w", err).InFile(path)
	}
	return nil
}
