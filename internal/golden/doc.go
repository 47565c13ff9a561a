// Package golden runs tests whose input and expected output are text in one
// txtar file, and rewrites the expectation with -update.
//
// It must not know what the text means. The first line of a file's comment
// says what to run; the sections are named by the caller.
package golden
