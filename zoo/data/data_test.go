package data

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/shared"
)

// npyFile assembles a file by hand from the description of the format
// (numpy.lib.format).
func npyFile(version byte, header string, body []byte) []byte {
	b := append([]byte("\x93NUMPY"), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), body...)
}

func TestReadNPY(t *testing.T) {
	six := []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0}
	for _, c := range []struct {
		name, header string
		version      byte
		body         []byte
		want         *tensor.Tensor
	}{
		{"c order", "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }\n", 1, six, tensor.Of([]int16{1, 2, 3, 4, 5, 6}, 2, 3)},
		// Column by column: (1,2) (3,4) (5,6).
		{"fortran order", "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }\n", 2, six, tensor.Of([]int16{1, 3, 5, 2, 4, 6}, 2, 3)},
		{"big endian", "{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }\n", 1, []byte{1, 0, 0, 2}, tensor.Of([]int16{256, 2}, 2)},
		{"scalar", "{'shape': (), 'fortran_order': False, 'descr': '|b1'}\n", 1, []byte{1}, tensor.Of([]bool{true})},
		{"empty", "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }\n", 3, nil, tensor.New(tensor.F32, 0, 4)},
	} {
		got, err := ReadNPY(bytes.NewReader(npyFile(c.version, c.header, c.body)))
		if err != nil || !tensor.Equal(got, c.want) {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
	s, err := ReadNPY(bytes.NewReader(npyFile(1, "{'descr': '<U2', 'fortran_order': False, 'shape': (2,), }", []byte("h\x00\x00\x00i\x00\x00\x00\xe9\x00\x00\x00\x00\x00\x00\x00"))))
	if err != nil || !slices.Equal(s.Strings(), []string{"hi", "é"}) {
		t.Errorf("strings: %v %v", s, err)
	}
}

func TestReadNPYRefuses(t *testing.T) {
	good := "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
	for name, b := range map[string][]byte{
		"no magic":  []byte("hello, world"),
		"truncated": npyFile(1, good, []byte{1, 2, 3}),
		"cut head":  npyFile(1, good, nil)[:20],
		"object":    npyFile(1, "{'descr': '|O8', 'fortran_order': False, 'shape': (1,), }\n", make([]byte, 8)),
		"huge":      npyFile(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }\n", nil),
		"version":   npyFile(9, good, make([]byte, 8)),
	} {
		if got, err := ReadNPY(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}

func TestWriteNPYBytes(t *testing.T) {
	var b bytes.Buffer
	if err := WriteNPY(&b, tensor.Of([]float32{1, 2}, 1, 2)); err != nil {
		t.Fatal(err)
	}
	// What numpy.save gives for this array: 128 bytes of head, 8 of data.
	head := "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"
	if b.Len() != 136 || !strings.HasPrefix(b.String(), head) || b.Bytes()[127] != '\n' {
		t.Errorf("%d bytes: %q", b.Len(), b.String())
	}
	if !bytes.Equal(b.Bytes()[128:], []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0x40}) {
		t.Errorf("data %x", b.Bytes()[128:])
	}
}

func TestRoundTripEveryType(t *testing.T) {
	var all []Named
	for d := tensor.F32; d.Valid(); d++ {
		x, err := Random(d, []int{3, 5}, 7, d.String())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Named{d.String(), x})
	}
	var b bytes.Buffer
	if err := WriteNPZ(&b, all, true); err != nil {
		t.Fatal(err)
	}
	got, err := ReadNPZ(b.Bytes())
	if err != nil || len(got) != len(all) {
		t.Fatalf("%d arrays, %v", len(got), err)
	}
	for i, g := range got {
		want := all[i].Tensor
		if g.Name != all[i].Name {
			t.Errorf("name %q, want %q", g.Name, all[i].Name)
		}
		if g.Tensor.DType == want.DType && !tensor.Equal(g.Tensor, want) {
			t.Errorf("%s: changed", g.Name)
		}
		// Types that NumPy lacks keep their values, not their type.
		if g.Tensor.DType != want.DType {
			for k := range want.Len() {
				a, b := g.Tensor.Float(k), want.Float(k)
				if a != b && !(math.IsNaN(a) && math.IsNaN(b)) {
					t.Errorf("%s[%d]: %g, want %g", g.Name, k, a, b)
				}
			}
		}
	}
}

func TestNPZHasNoTimes(t *testing.T) {
	var b bytes.Buffer
	if err := WriteNPZ(&b, []Named{{"../x", tensor.Scalar(float32(1))}}, false); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil || z.File[0].Name != ".._x.npy" || z.File[0].ModifiedDate != 0 {
		t.Errorf("%v %+v", err, z.File[0].FileHeader)
	}
}

func TestReadIDX(t *testing.T) {
	b := []byte{0, 0, 0x0b, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x01, 0x02, 0xff, 0xfe}
	got, err := ReadIDX(b)
	if err != nil || !tensor.Equal(got, tensor.Of([]int16{258, -2}, 1, 2)) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range [][]byte{b[:15], b[:6], {1, 2, 3, 4}, {0, 0, 0x10, 0}} {
		if _, err := ReadIDX(bad); err == nil {
			t.Errorf("%x was read", bad)
		}
	}
}

func TestReadCSV(t *testing.T) {
	got, err := ReadCSV([]byte("\xef\xbb\xbfa,b\n1, 2.5\n-3,4e1\n"))
	if err != nil || !tensor.Equal(got, tensor.Of([]float32{1, 2.5, -3, 40}, 2, 2)) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "a,b\n", "1,2\n3\n", "1,2\n3,x\n"} {
		if _, err := ReadCSV([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestReadErrorsName(t *testing.T) {
	dir := t.TempDir()
	p := filepath.Join(dir, "x.npy")
	if err := os.WriteFile(p, []byte("no"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{p, filepath.Join(dir, "missing.npz"), filepath.Join(dir, "x.docx")} {
		if _, err := Read(f, nil); !fault.Is(err, fault.BadModel) || !strings.HasPrefix(err.Error(), f+": ") {
			t.Errorf("%v", err)
		}
	}
}

// pngOf draws a picture from RGB triples.
func pngOf(t *testing.T, w int, px ...color.RGBA) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, len(px)/w))
	for i, c := range px {
		m.Set(i%w, i/w, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPreprocess(t *testing.T) {
	red, blue := color.RGBA{255, 0, 51, 255}, color.RGBA{0, 102, 255, 255}
	pic := pngOf(t, 2, red, blue)
	for _, c := range []struct {
		spec string
		want *tensor.Tensor
	}{
		{"", tensor.Of([]float32{255, 0, 0, 102, 51, 255}, 1, 3, 1, 2)},
		{"layout=hwc", tensor.Of([]float32{255, 0, 51, 0, 102, 255}, 1, 2, 3)},
		{"bgr,layout=nhwc", tensor.Of([]float32{51, 0, 255, 255, 102, 0}, 1, 1, 2, 3)},
		{"scale=1/255,layout=flat", tensor.Of([]float32{1, 0, 0.2, 0, 0.4, 1}, 1, 6)},
		{"mean=5:2:1,std=2:1:10,layout=hwc", tensor.Of([]float32{125, -2, 5, -2.5, 100, 25.4}, 1, 2, 3)},
		// 0.299·255 + 0.114·51 = 82.06; 0.587·102 + 0.114·255 = 88.94; Pillow gives 82 and 89.
		{"gray,layout=hw", tensor.Of([]float32{82, 89}, 1, 2)},
		{"gray,invert,layout=hw,dtype=uint8", tensor.Of([]uint8{173, 166}, 1, 2)},
		{"scale=-1,layout=hwc,dtype=int8", tensor.Of([]int8{-128, 0, -51, 0, -102, -128}, 1, 2, 3)},
		// Doubled without smoothing, then the middle two columns.
		{"filter=nearest,resize=4x1,crop=2x1,layout=hwc", tensor.Of([]float32{255, 0, 51, 0, 102, 255}, 1, 2, 3)},
		// Longer side 4: the second row is half of the height and black.
		{"filter=nearest,fit=2,gray,layout=hw", tensor.Of([]float32{82, 89, 0, 0}, 2, 2)},
	} {
		p, err := ParsePreprocess(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadImage(pic, p)
		if err != nil || got.DType != c.want.DType || !slices.Equal(got.Shape, c.want.Shape) {
			t.Errorf("%s: %v %v", c.spec, got, err)
			continue
		}
		for i, w := range c.want.Floats() {
			if math.Abs(got.Float(i)-w) > 1e-6*math.Abs(w) {
				t.Errorf("%s: %v, want %v", c.spec, got.Floats(), c.want.Floats())
				break
			}
		}
	}
}

func TestPreprocessFor(t *testing.T) {
	pic := pngOf(t, 2, color.RGBA{255, 255, 255, 255}, color.RGBA{255, 255, 255, 255})
	p, err := ParsePreprocess("resize=3x3,scale=1/255")
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadImage(pic, p.For(tensor.F32, []int{1, 1, 3, 3}))
	if err != nil || !slices.Equal(got.Shape, []int{1, 1, 3, 3}) || got.Float(4) != 1 {
		t.Errorf("%v %v", got, err)
	}
	var none *Preprocess
	got, err = ReadImage(pic, none.For(tensor.U8, []int{1, 4, 6, 3}))
	if err != nil || got.DType != tensor.U8 || !slices.Equal(got.Shape, []int{1, 4, 6, 3}) {
		t.Errorf("%v %v", got, err)
	}
}

func TestParsePreprocessRefuses(t *testing.T) {
	for spec, want := range map[string]string{
		"resze=3": `did you mean "resize"`, "resize=": "0 numbers", "std=0": "out of range", "scale=1/0": "not a number",
		"crop=1.5": "out of range", "layout=nwhc": "use one of", "dtype=string": "unknown element type", "mean=1:2:3:4:5": "5 numbers",
	} {
		if _, err := ParsePreprocess(spec); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestTop(t *testing.T) {
	got := Top(tensor.Of([]float32{1, 5, 5, 2}, 4), []string{"a", "b"}, 3)
	want := []Score{{1, "b", 5}, {2, "", 5}, {3, "", 2}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestMNIST(t *testing.T) {
	dir := shared.Dir(t, "datasets", "mnist")
	x, err := Read(filepath.Join(dir, "t10k-images-idx3-ubyte.gz"), nil)
	if err != nil || !slices.Equal(x[0].Tensor.Shape, []int{10000, 28, 28}) {
		t.Fatalf("%v %v", x, err)
	}
	y, err := Read(filepath.Join(dir, "t10k-labels-idx1-ubyte.gz"), nil)
	// The first test digits, as every MNIST tutorial shows them.
	if err != nil || !slices.Equal(y[0].Tensor.Bytes()[:10], []byte{7, 2, 1, 0, 4, 1, 4, 9, 5, 9}) {
		t.Errorf("%v", err)
	}
}

func TestCIFAR10(t *testing.T) {
	x, y, err := ReadCIFAR10(shared.Dir(t, "datasets", "cifar10", "test_1000.bin.gz"))
	if err != nil || !slices.Equal(x.Shape, []int{1000, 3, 32, 32}) {
		t.Fatalf("%v %v", x, err)
	}
	labels, err := ReadLabels(shared.Dir(t, "datasets", "cifar10", "labels.txt"))
	if err != nil || len(labels) != 10 {
		t.Fatalf("%v %v", labels, err)
	}
	// The published test set begins so, as every CIFAR-10 tutorial shows it.
	for i, want := range []string{"cat", "ship", "ship", "airplane", "frog", "frog"} {
		if got := labels[y.Int(i)]; got != want {
			t.Errorf("image %d is a %s, want %s", i, got, want)
		}
	}
}
