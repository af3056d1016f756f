package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"lensfs/docs"
)

// texts are the files of a tree, by name.
type texts map[string]string

// round is one read of all files, from inside of a container: LXCFS's, lensfs's, LXCFS's again. What was read beside is with LXCFS's.
type round [3]texts

// expected is what the container's limits make of it.
type expected struct {
	cpuset   []int // the CPUs it may run on
	shown    []int // of these, what its quota and those above it are worth
	lxcfs    int   // how many CPUs this LXCFS counts
	spinners int   // threads that always run
	pid      int   // the container's, that reads
	version2 bool  // of cgroups, for memory and cpu
}

// found is a field, and what stands beside it.
type found struct {
	differs       bool
	key           string
	before, after string // LXCFS's
	ours          string
	lensfs        map[string]string    // all fields of the same round
	beside        [2]map[string]string // before and after, "memory.stat.anon"
	expected      *expected
}

// found gives all fields of one round.
func (r round) found(e *expected) []*found {
	var all []*found
	lensfs, around := map[string]string{}, [2]map[string]string{{}, {}}
	for _, name := range slices.Concat(comparedFiles, comparedDirs) {
		before, ours, after := fields(name, r[0][name]), fields(name, r[1][name]), fields(name, r[2][name])
		for _, key := range sortedKeys(before, ours, after) {
			lensfs[key] = ours[key]
			all = append(all, &found{
				differs: !between(before[key], ours[key], after[key], tolerance(key, e.spinners, sum(lensfs["uptime.age"]))),
				key:     key, before: before[key], after: after[key], ours: ours[key], lensfs: lensfs, beside: around, expected: e,
			})
		}
		for _, extra := range beside[name] {
			from, _, _ := strings.Cut(extra, "/")
			for i, text := range []string{r[0][extra], r[2][extra]} {
				for key, value := range fields(extra, text) {
					around[i][from+":"+key] = value
				}
			}
		}
	}
	return all
}

// unexplained gives an error for each field that in every round differs without a row of the table that says why, or is not what a row says that it
// is. What only time explains, goes away.
func unexplained(rounds []round, e *expected, table []*difference, conditions []string) []error {
	count, why := map[string]int{}, map[string]error{}
	for _, r := range rounds {
		for _, f := range r.found(e) {
			if err := explain(table, f, conditions); err != nil {
				count[f.key]++
				why[f.key] = err
			}
		}
	}
	var errs []error
	for key, n := range count {
		if n == len(rounds) {
			errs = append(errs, why[key])
		}
	}
	return errs
}

// difference is a row of the table.
type difference struct {
	key           string
	when          []string
	lxcfs, lensfs string // the cells
	check         string // the relation's name
	used          bool
}

func (d *difference) String() string {
	return fmt.Sprintf("%s (%s; %s)", d.key, strings.Join(d.when, ", "), d.check)
}

// knownDifferences reads the second table of docs/differences.md, whose rows begin with keys in code quotes.
func knownDifferences() ([]*difference, error) {
	var rows []*difference
	_, text, _ := strings.Cut(docs.Differences, "\n| field |")
	for line := range strings.Lines(text) {
		cell := strings.Split(strings.TrimSpace(line), "|")
		if len(cell) < 2 || !strings.HasPrefix(cell[1], " `") {
			continue
		}
		if len(cell) != 8 {
			return nil, fmt.Errorf("a row of %d cells: %s", len(cell)-2, line)
		}
		for i := range cell {
			cell[i] = strings.TrimSpace(cell[i])
		}
		for key := range strings.SplitSeq(cell[1], ",") {
			d := &difference{key: strings.Trim(key, " `"), lxcfs: strings.Trim(cell[3], "`"), lensfs: strings.Trim(cell[4], "`"), check: cell[5]}
			if relations[d.check] == nil {
				return nil, fmt.Errorf("%s: nobody knows how to check %q", d.key, d.check)
			}
			for when := range strings.SplitSeq(cell[2], ",") {
				if when = strings.TrimSpace(when); when != "" {
					d.when = append(d.when, when)
				}
			}
			rows = append(rows, d)
		}
	}
	if len(rows) < 10 {
		return nil, fmt.Errorf("the table has %d rows", len(rows))
	}
	return rows, nil
}

// explain looks for a row that says why a field differs, and that it has to differ like this. What rows say of lensfs alone has to be true of fields
// that do not differ, too.
func explain(table []*difference, f *found, conditions []string) error {
	var broken []string
	for _, d := range table {
		match, err := filepath.Match(d.key, f.key)
		if err != nil {
			return errors.Join(fmt.Errorf("the row of %s", d.key), err)
		}
		if !match || slices.ContainsFunc(d.when, func(when string) bool { return !slices.Contains(conditions, when) }) {
			continue
		}
		if relations[d.check](f, d) {
			d.used = d.used || f.differs
			return nil
		}
		if f.differs || slices.Contains(ofLensfs, d.check) {
			broken = append(broken, d.String())
		}
	}
	switch {
	case broken != nil:
		return fmt.Errorf("%s: LXCFS %.200q, lensfs %.200q: not as these rows of docs/differences.md have it: %s", f.key, f.before, f.ours, strings.Join(broken, "; "))
	case f.differs:
		return fmt.Errorf("%s: LXCFS %.200q, lensfs %.200q: no row of docs/differences.md is of this", f.key, f.before, f.ours)
	}
	return nil
}
