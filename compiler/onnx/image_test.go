package onnx

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/tensor"
)

// jpegSums are the first eight bytes of the SHA-256 of the red, green and blue
// bytes that libjpeg-turbo 2.1.5 decodes from the files of testdata/jpeg, which
// it wrote.
var jpegSums = []struct{ name, sum string }{
	{"17x13_444", "84ae0eb74af350f6"},
	{"17x13_422_restart", "d5f61e4d79d77afe"},
	{"17x13_420", "97facba73b09cca8"},
	{"17x13_440", "25b78595cfdb2207"},
	{"17x13_gray", "8d456c30e3495d6a"},
	{"17x13_rgb", "5d96c3f8447f96a3"},
	{"33x50_420_progressive_restart", "f0055b4fb9c226d4"},
	{"5x4_422_progressive", "e5487a036d9fa75e"},
	{"3x5_420", "d8395eac73395cfd"},
}

func readJPEG(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "jpeg", name+".jpg"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestJPEGIsThatOfLibjpeg(t *testing.T) {
	for _, c := range jpegSums {
		p, err := decodeJPEG(readJPEG(t, c.name))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if sum := sha256.Sum256(p.rgb); hex.EncodeToString(sum[:8]) != c.sum {
			t.Errorf("%s: the pixels have sum %x, libjpeg's have %s", c.name, sum[:8], c.sum)
		}
	}
}

// TestBrokenJPEG cuts files off and changes their bytes: an error or a picture,
// never a crash.
func TestBrokenJPEG(t *testing.T) {
	for _, c := range jpegSums {
		data := readJPEG(t, c.name)
		for n := 0; n < len(data); n += 3 {
			_, _ = decodeJPEG(data[:n])
			for _, v := range []byte{0, 0xff, data[n] ^ 0x55} {
				bad := slices.Clone(data)
				bad[n] = v
				if p, err := decodeJPEG(bad); err == nil && len(p.rgb) != 3*p.w*p.h {
					t.Fatalf("%s, byte %d = %#x: %d bytes for %d × %d pixels", c.name, n, v, len(p.rgb), p.w, p.h)
				}
			}
		}
	}
	if _, err := decodeJPEG(readJPEG(t, jpegSums[0].name)[:20]); err == nil {
		t.Error("a file without a picture is decoded")
	}
}

func decoded(t *testing.T, data []byte, format string) (*tensor.Tensor, error) {
	t.Helper()
	c := rowCase{op: "ImageDecoder", opset: 20, attrs: attrs("pixel_format", format), in: list(u8([]int{len(data)}, data...)), want: list(u8([]int{0}))}
	got, err := c.eval()
	if err != nil {
		return nil, err
	}
	return got[0], nil
}

func TestPictures(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	m.Set(0, 0, color.NRGBA{200, 100, 50, 255})
	m.Set(1, 0, color.NRGBA{0, 0, 255, 255})
	pal := image.NewPaletted(m.Rect, color.Palette{color.NRGBA{200, 100, 50, 255}, color.NRGBA{0, 0, 255, 255}})
	pal.Pix = []byte{0, 1}
	files := map[string]func(b *bytes.Buffer) error{
		"png":         func(b *bytes.Buffer) error { return png.Encode(b, m) },
		"palette png": func(b *bytes.Buffer) error { return png.Encode(b, pal) },
		"gif":         func(b *bytes.Buffer) error { return gif.Encode(b, pal, nil) },
		"bmp":         func(b *bytes.Buffer) error { return bmp.Encode(b, m) },
		"tiff":        func(b *bytes.Buffer) error { return tiff.Encode(b, m, nil) },
		"pnm text": func(b *bytes.Buffer) error {
			_, err := b.WriteString("P3 # colours\n2 1\n255\n200 100 50  0 0 255\n")
			return err
		},
		"pnm": func(b *bytes.Buffer) error {
			_, err := b.WriteString("P6\n2 1\n255\n\xc8\x64\x32\x00\x00\xff")
			return err
		},
	}
	// Grey: (200·19595 + 100·38470 + 50·7471 + 32768) >> 16 = 124, (255·7471 + 32768) >> 16 = 29.
	want := map[string]*tensor.Tensor{
		"RGB": u8([]int{1, 2, 3}, 200, 100, 50, 0, 0, 255), "BGR": u8([]int{1, 2, 3}, 50, 100, 200, 255, 0, 0), "Grayscale": u8([]int{1, 2, 1}, 124, 29),
	}
	for name, write := range files {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		for format, w := range want {
			got, err := decoded(t, b.Bytes(), format)
			if err != nil {
				t.Errorf("%s as %s: %v", name, format, err)
			} else if !tensor.Equal(got, w) {
				t.Errorf("%s as %s: %v, want %v", name, format, got.Floats(), w.Floats())
			}
		}
		if _, err := decoded(t, b.Bytes()[:b.Len()-5], "RGB"); err == nil && (name == "png" || name == "pnm") {
			t.Errorf("%s cut off is decoded", name)
		}
	}
	// 7 of 15 is 119 of 255.
	if got, err := decoded(t, []byte("P2 1 1 15 7"), "Grayscale"); err != nil || got.Int(0) != 119 {
		t.Errorf("a grey map of 4 bits: %v, %v", got, err)
	}
	for _, magic := range []string{"\xff\x4f\xff\x51", "\x00\x00\x00\x0cjP  ", "P4 1 1 0", "what"} {
		if _, err := decoded(t, []byte(magic+"        "), "RGB"); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%q: %v, want it refused", magic, err)
		}
	}
	if _, err := Eval(rowCase{op: "ImageDecoder", attrs: []ir.Attr{}, in: list(u8([]int{0})), want: list(u8([]int{0}))}.graph(), map[string]int{"": 20}, []*ir.Data{ir.TensorData(u8([]int{0}))}, nil); !fault.Is(err, fault.Unsupported) {
		t.Errorf("an empty file: %v, want it refused", err)
	}
}
