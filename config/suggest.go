package config

import (
	"reflect"
	"strings"
)

// suggest finds what an unknown key may have meant: a sibling that is spelled nearly so, else a key of that very name
// elsewhere in the file. "" means that nothing is near.
func suggest(unknown, parent string, siblings []field) string {
	best, least := "", len(unknown)/3+1
	lowered := strings.ReplaceAll(strings.ToLower(unknown), "-", "_")
	for _, f := range siblings {
		if d := distance(lowered, f.name); d <= least && d < max(len(f.name), 2) {
			best, least = join(parent, f.name), d-1
		}
	}
	if best != "" {
		return best
	}
	return elsewhere(lowered, "", reflect.TypeFor[Config]())
}

func elsewhere(name, path string, t reflect.Type) string {
	for _, f := range fieldsOf(t) {
		if f.name == name {
			return join(path, f.name)
		}
	}
	for _, f := range fieldsOf(t) {
		if !isSection(f.typ) {
			continue
		}
		if found := elsewhere(name, join(path, f.name), f.typ); found != "" {
			return found
		}
	}
	return ""
}

// distance is Levenshtein's, with a swap of neighbours counted once. Long keys are not compared: nobody mistypes those.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b))
	}
	older, previous, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, previous, row = previous, row, older
	}
	return previous[len(b)]
}
