package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is the class of a fault that is not lathe's own. An error without a
// class is an internal one.
type Kind uint8

// The classes, each with the exit code that cmd gives it.
const (
	Internal    Kind = iota // 1: an error that nobody classed
	Usage                   // 2: wrong flags or arguments, or an output that cannot be written
	BadModel                // 3: a model or data that is missing, broken or contradicts itself
	Unsupported             // 4: an op, dtype, attribute value or opset that lathe refuses
	Verify                  // 5: results differ from the reference
	Gate                    // 6: a stated limit was not met
	Toolchain               // 7: a compiler, library or device is missing
	Budget                  // 8: time or trials ran out, the best so far was written
	Lock                    // 9: inputs differ from the lock file
)

var kindNames = [...]string{
	Internal: "internal", Usage: "usage", BadModel: "bad-model", Unsupported: "unsupported", Verify: "verify",
	Gate: "gate", Toolchain: "toolchain", Budget: "budget", Lock: "lock",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is a classed error. Its fields are optional except Kind and Msg; the
// builder methods fill them in one expression:
//
//	return fault.New(fault.Unsupported, "padding mode %q", m).AtNode(n.Name, n.OpType).Hint("use constant")
type Error struct {
	Kind Kind
	File string // the file that is at fault
	Node string // the node's name in the model
	Op   string // the node's op type, with its domain if it is not ONNX's own
	Msg  string // one lower-case sentence
	Help string // the next step to take
	Err  error  // the cause, for errors.Is and errors.As
}

// New makes a classed error. The format may wrap a cause with %w.
func New(k Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	e := &Error{Kind: k, Msg: err.Error()}
	switch err.(type) {
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		e.Err = err
	}
	return e
}

// InFile names the file that is at fault.
func (e *Error) InFile(path string) *Error { e.File = path; return e }

// AtNode names the node that is at fault and its op type.
func (e *Error) AtNode(name, op string) *Error { e.Node, e.Op = name, op; return e }

// Hint adds the next step to take.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Help = fmt.Sprintf(format, args...)
	return e
}

// Error is one sentence: file, node, what. The hint is printed apart.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ": ")
	}
	switch {
	case e.Node != "" && e.Op != "":
		fmt.Fprintf(&b, "node %q (%s): ", e.Node, e.Op)
	case e.Node != "":
		fmt.Fprintf(&b, "node %q: ", e.Node)
	case e.Op != "":
		b.WriteString("op " + e.Op + ": ")
	}
	b.WriteString(e.Msg)
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// As finds the outermost classed error in a chain; nil if there is none.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// KindOf is the class of the outermost classed error in a chain.
func KindOf(err error) Kind {
	if e := As(err); e != nil {
		return e.Kind
	}
	return Internal
}

// HintOf is the first hint in a chain, from the outside in.
func HintOf(err error) string {
	for err != nil {
		e := As(err)
		if e == nil {
			return ""
		}
		if e.Help != "" {
			return e.Help
		}
		err = e.Err
	}
	return ""
}

// Is reports whether the chain's class is k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }
