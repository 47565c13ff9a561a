// Package passes is the table of passes over graphs, and the pipelines that
// commands run on a model.
//
// It must not know backends or the command line.
package passes
