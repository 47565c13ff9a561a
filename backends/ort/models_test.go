package ort

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/lathe-ml/lathe/compiler/conformance"
	"github.com/lathe-ml/lathe/compiler/fault"
	"github.com/lathe-ml/lathe/compiler/ir"
	"github.com/lathe-ml/lathe/compiler/onnxfile"
	"github.com/lathe-ml/lathe/compiler/tensor"
	"github.com/lathe-ml/lathe/internal/shared"
)

// TestRecordedOutputs runs each shared model on its recorded inputs. The
// outputs were recorded with this release of ONNX Runtime, so a wrong binding
// (element types, order, strings) cannot hide behind a tolerance: the ones of
// one build differ by rounding only.
func TestRecordedOutputs(t *testing.T) {
	r := open(t)
	cases, err := conformance.Discover(shared.Dir(t, "models"))
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 30 {
		t.Fatalf("only %d models found", len(cases))
	}
	for _, c := range cases {
		t.Run(filepath.Base(c.Name), func(t *testing.T) {
			res := conformance.One(context.Background(), c, runner(r, c.Model), conformance.Options{Timeout: time.Minute, Tolerance: conformance.Tolerance{RTol: 1e-3, ATol: 1e-4}})
			if res.Status != conformance.Pass {
				t.Errorf("%s: %s", res.Status, res.Reason)
			}
		})
	}
}

func runner(r *Runtime, path string) conformance.Runner {
	return func(_ context.Context, m *onnxfile.Model, s *conformance.Set) (conformance.Outputs, error) {
		session, err := r.LoadFile(path, Options{})
		if err != nil {
			return conformance.Outputs{}, err
		}
		defer session.Close()
		var in []*tensor.Tensor
		for _, d := range s.Inputs {
			u := d.Unwrap()
			if u == nil || u.Tensor == nil {
				return conformance.Outputs{}, fault.New(fault.Unsupported, "an input is no tensor")
			}
			in = append(in, u.Tensor)
		}
		ts, err := session.Run(in)
		if err != nil {
			return conformance.Outputs{}, err
		}
		out := make([]*ir.Data, len(ts))
		for i, x := range ts {
			out[i] = ir.TensorData(x)
		}
		return conformance.Outputs{Data: out}, nil
	}
}

// TestElementTypes holds that tensors of every type go in and out bit for bit:
// the recorded node cases cover strings, 4- and 2-bit integers and
// 8-bit floats.
func TestElementTypes(t *testing.T) {
	r := open(t)
	dir := shared.Dir(t, "onnx-backend-tests", "node")
	cases, err := conformance.Discover(dir)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]conformance.Case{}
	for _, c := range cases {
		byName[c.Name] = c
	}
	for _, name := range []string{
		"test_cast_FLOAT_to_FLOAT16", "test_cast_FLOAT_to_DOUBLE", "test_cast_FLOAT_to_BFLOAT16", "test_cast_FLOAT_to_FLOAT8E4M3FN",
		"test_cast_FLOAT_to_FLOAT8E5M2FNUZ", "test_cast_FLOAT_to_INT4", "test_cast_UINT4_to_FLOAT", "test_cast_FLOAT_to_UINT2", "test_cast_INT2_to_FLOAT", "test_cast_e8m0_FLOAT_to_FLOAT8E8M0", "test_cast_e8m0_FLOAT8E8M0_to_FLOAT", "test_range_float_type_positive_delta", "test_identity",
		"test_string_concat", "test_strnormalizer_nostopwords_nochangecase", "test_equal_string", "test_string_split_basic", "test_and2d", "test_bitshift_left_uint64",
	} {
		t.Run(name, func(t *testing.T) {
			c, ok := byName[name]
			if !ok {
				t.Fatalf("no such case")
			}
			res := conformance.One(context.Background(), c, runner(r, c.Model), conformance.Options{Timeout: time.Minute, Tolerance: conformance.Standard})
			if res.Status != conformance.Pass {
				t.Errorf("%s: %s", res.Status, res.Reason)
			}
		})
	}
}
