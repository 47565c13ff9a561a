// Package nearest finds what a misspelt name was meant to be. It knows words
// only.
package nearest

// Find gives the candidate closest to word by edits (insert, delete, replace,
// swap neighbours), or "" if none is close: at most a third of the word's
// length, and always one.
func Find(word string, candidates []string) string {
	best, limit := "", max(1, len([]rune(word))/3)
	for _, c := range candidates {
		if d := distance([]rune(word), []rune(c)); d <= limit {
			if d == 0 {
				return c
			}
			best, limit = c, d-1
		}
	}
	return best
}

// distance is the optimal string alignment distance.
func distance(a, b []rune) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
