// Package shared finds the reference material that tests compare with: models,
// recorded cases, checkpoints.
//
// It must not know what lies in it.
package shared
