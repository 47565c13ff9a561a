// Package toolchain runs a C compiler, with a cache of objects keyed by all
// that decides their bytes.
//
// It must not know what the sources are.
package toolchain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/lathe-ml/lathe/compiler/backend"
	"github.com/lathe-ml/lathe/compiler/fault"
)

// Compiler is a C compiler on this machine.
type Compiler struct {
	Path    string
	Version string // its first line of --version
}

// Find looks for a C compiler: the given one, $CC, gcc, clang, cc.
func Find(name string) (*Compiler, error) {
	names := []string{name}
	if name == "" {
		names = []string{os.Getenv("CC"), "gcc", "clang", "cc"}
	}
	for _, n := range names {
		if n == "" {
			continue
		}
		path, err := exec.LookPath(n)
		if err != nil {
			continue
		}
		out, err := exec.Command(path, "--version").Output()
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return &Compiler{path, line}, nil
	}
	what := "no C compiler was found"
	if name != "" {
		what = fmt.Sprintf("the C compiler %q was not found", name)
	}
	return nil, fault.New(fault.Toolchain, "%s", what).Hint("install gcc or clang (apt-get install gcc), set CC, or use --target portable")
}

// Build compiles C sources and links a shared library at out. Objects are
// taken from and put into cache, if it is not "".
func (c *Compiler) Build(ctx context.Context, srcs []backend.Source, flags, libs []string, out, cache string) error {
	dir, err := os.MkdirTemp("", "lathe-build-")
	if err != nil {
		return fault.New(fault.Usage, "cannot make a folder for the build: %w", err).Hint("set TMPDIR to a folder with space")
	}
	defer os.RemoveAll(dir)
	headers := sha256.New()
	var units []backend.Source
	for _, s := range srcs {
		if err := os.WriteFile(filepath.Join(dir, s.Name), s.Text, 0o666); err != nil {
			return fault.New(fault.Usage, "cannot write the sources: %w", err).Hint("set TMPDIR to a folder with space")
		}
		if strings.HasSuffix(s.Name, ".c") {
			units = append(units, s)
		} else {
			fmt.Fprintf(headers, "%s %d\n", s.Name, len(s.Text))
			headers.Write(s.Text)
		}
	}
	base := hex.EncodeToString(headers.Sum(nil))
	objs := make([]string, len(units))
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, u := range units {
		objs[i] = filepath.Join(dir, strings.TrimSuffix(u.Name, ".c")+".o")
		g.Go(func() error { return c.object(all, dir, u, flags, base, objs[i], cache) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	args := append([]string{"-shared", "-Wl,--build-id=none", "-o", out}, objs...)
	return c.run(ctx, dir, append(args, libs...))
}

func (c *Compiler) object(ctx context.Context, dir string, u backend.Source, flags []string, headers, obj, cache string) error {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%q\n%s\n", c.Version, flags, headers)
	h.Write(u.Text)
	key := hex.EncodeToString(h.Sum(nil))
	kept := filepath.Join(cache, key[:2], key+".o")
	if cache != "" {
		if b, err := os.ReadFile(kept); err == nil && len(b) > 0 {
			return os.WriteFile(obj, b, 0o666)
		}
	}
	// The name in the object is that of the source alone: the same bytes from
	// every folder.
	args := append(append([]string{}, flags...), "-ffile-prefix-map="+dir+"=.", "-c", u.Name, "-o", obj)
	if err := c.run(ctx, dir, args); err != nil {
		return err
	}
	if cache == "" {
		return nil
	}
	b, err := os.ReadFile(obj)
	if err != nil {
		return err
	}
	// A cache that cannot be written is no reason to fail a build.
	if os.MkdirAll(filepath.Dir(kept), 0o777) == nil {
		tmp := fmt.Sprintf("%s.%d", kept, os.Getpid())
		if os.WriteFile(tmp, b, 0o666) == nil {
			_ = os.Rename(tmp, kept)
		}
	}
	return nil
}

func (c *Compiler) run(ctx context.Context, dir string, args []string) error {
	cmd := exec.CommandContext(ctx, c.Path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	text := strings.TrimSpace(out.String())
	if len(text) > 2000 {
		text = text[:2000] + " …"
	}
	return fmt.Errorf("the C compiler failed on lathe's own code (%w): %s", err, text)
}
