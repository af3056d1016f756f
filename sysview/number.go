package sysview

import (
	"math"
	"strconv"
	"strings"
)

// A number says which file of the directory is meant, to every daemon that ever serves on this host:
//
//	bit 35        a file of this directory
//	bits 22-34    1 + the number N in a path cpuN/… or cpufreq/policyN/…; 0 for a path without one
//	bits 0-21     a hash of the path, N left out
//
// So it fits into 36 bits, and what is under cpu0 and cpu255 has one hash, which is remembered once. CPU 8191, the last that a kernel can be built
// for, would need a 14th bit: its directory is not served.
const (
	flagBit  = 35
	cpuShift = 22
	maxCPU   = 1<<(flagBit-cpuShift) - 2

	// Top is the number of the directory itself.
	Top = uint64(1) << flagBit
	// NumberBits is how long a number can be.
	NumberBits = flagBit + 1
)

// Has says whether a number is of this directory. The file need not exist.
func Has(number uint64) bool { return number>>flagBit == 1 }

// place is a path with the number of a CPU taken out: "cpu" and "topology/core_id" of cpu3/topology/core_id.
type place struct {
	prefix string // before the number; "" where there is none
	rest   string // behind it
}

// prefixes are what stands before a CPU's number. cpuN/cpufreq is a link to cpufreq/policyN.
var prefixes = [...]string{"cpu", "cpufreq/policy"}

// split takes the CPU's number out of a path; cpu is -1 for one without.
func split(path string) (at place, cpu int) {
	for _, prefix := range prefixes {
		tail, ok := strings.CutPrefix(path, prefix)
		if !ok {
			continue
		}
		digits, rest, _ := strings.Cut(tail, "/")
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || n > math.MaxInt32 || digits != strconv.FormatUint(n, 10) { // "cpu007" is no CPU's
			continue
		}
		return place{prefix, rest}, int(n)
	}
	return place{"", path}, -1
}

// path puts the number back.
func (p place) path(cpu int) string {
	if p.prefix == "" {
		return p.rest
	}
	dir := p.prefix + strconv.Itoa(cpu)
	if p.rest == "" {
		return dir
	}
	return dir + "/" + p.rest
}

// key is what is remembered of a number: its hash, and whether it is of a path with a CPU's number.
type key uint32

const numbered key = 1 << cpuShift

func (p place) key() key {
	h := uint32(2166136261) // FNV-1a, folded
	for _, s := range [...]string{p.prefix, "/", p.rest} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
	}
	k := key(max(1, h>>cpuShift^h&(1<<cpuShift-1))) // 0 is the directory itself
	if p.prefix != "" {
		k |= numbered
	}
	return k
}

// number gives the number of a path; ok is false for one of a CPU beyond those that have one.
func number(path string) (n uint64, ok bool) {
	if path == "" {
		return Top, true
	}
	at, cpu := split(path)
	return numberOf(at, cpu), cpu <= maxCPU
}

func numberOf(at place, cpu int) uint64 {
	return Top | uint64(cpu+1)<<cpuShift | uint64(at.key()&^numbered)
}

// take gives what a number says of itself.
func take(number uint64) (k key, cpu int) {
	k = key(number & (1<<cpuShift - 1))
	cpu = int(number&(Top-1)>>cpuShift) - 1
	if cpu >= 0 {
		k |= numbered
	}
	return k, cpu
}
