package data

import (
	"bytes"
	"testing"

	"github.com/lathe-ml/lathe/compiler/tensor"
)

// FuzzRead holds that no file makes a reader panic, and that what was read as
// NumPy is read again as the same.
func FuzzRead(f *testing.F) {
	var npy bytes.Buffer
	if err := WriteNPY(&npy, tensor.Of([]float32{1, 2, 3}, 3)); err != nil {
		f.Fatal(err)
	}
	f.Add(npy.Bytes())
	f.Add(npyFile(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }", make([]byte, 12)))
	f.Add([]byte{0, 0, 0x0b, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4})
	f.Add([]byte("a,b\n1,2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func([]byte) (*tensor.Tensor, error){ReadIDX, ReadCSV, ReadPB} {
			if x, err := read(b); err == nil && x == nil {
				t.Error("neither a tensor nor an error")
			}
		}
		x, err := ReadNPY(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteNPY(&again, x); err != nil {
			t.Fatal(err)
		}
		y, err := ReadNPY(&again)
		if err != nil {
			t.Fatal(err)
		}
		if x.DType != tensor.String && !tensor.Equal(x, y) {
			t.Errorf("%s became %s", x, y)
		}
	})
}

func FuzzPreprocess(f *testing.F) {
	f.Add("resize=4,crop=2x2,gray,scale=1/255,mean=0.5,layout=hw")
	f.Add("fit=3,bgr,invert,std=1:2:3,dtype=int8")
	if _, err := ReadImage(pngBytes, nil); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		p, err := ParsePreprocess(spec)
		if err != nil {
			return
		}
		for _, s := range p.steps {
			for _, a := range s.args {
				if (s.name == "resize" || s.name == "fit" || s.name == "crop") && a > 64 {
					return // right, but slow
				}
			}
		}
		if x, err := ReadImage(pngBytes, p); err == nil && x == nil {
			t.Error("neither a tensor nor an error")
		}
	})
}

// pngBytes is a picture of one red pixel.
var pngBytes = []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82")
