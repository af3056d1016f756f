package cgroupview

import (
	"bytes"
	"math/bits"
	"strconv"
	"sync"
	"time"

	"lensfs/cgroupview/kfile"
)

// MaxCPUs is the largest NR_CPUS that a kernel can be built with.
const MaxCPUs = 8192

// CPUSet is a set of CPU numbers. Its zero value is empty.
type CPUSet struct {
	bits [MaxCPUs / 64]uint64
	top  int // words in use
}

// ParseCPUSet reads the kernel's list format, "0-3,7", with or without a newline. CPUs from MaxCPUs on are refused.
func ParseCPUSet(text []byte) (CPUSet, error) {
	var s CPUSet
	text = kfile.Trim(text)
	for len(text) > 0 {
		part := text
		if i := bytes.IndexByte(text, ','); i >= 0 {
			part, text = text[:i], text[i+1:]
			if len(text) == 0 {
				return CPUSet{}, kfile.ErrSyntax
			}
		} else {
			text = nil
		}
		lo, hi := part, part
		if i := bytes.IndexByte(part, '-'); i >= 0 {
			lo, hi = part[:i], part[i+1:]
		}
		first, ok1 := kfile.Uint(lo)
		last, ok2 := kfile.Uint(hi)
		if !ok1 || !ok2 || first > last || last >= MaxCPUs {
			return CPUSet{}, kfile.ErrSyntax
		}
		for n := first; n <= last; n++ {
			s.Add(int(n))
		}
	}
	return s, nil
}

// Add puts CPU n, 0 to MaxCPUs-1, into the set.
func (s *CPUSet) Add(n int) {
	s.bits[n/64] |= 1 << (n % 64)
	s.top = max(s.top, n/64+1)
}

// Has says whether CPU n is in the set.
func (s *CPUSet) Has(n int) bool {
	return n >= 0 && n < MaxCPUs && s.bits[n/64]&(1<<(n%64)) != 0
}

// Equal says whether both hold the same CPUs.
func (s *CPUSet) Equal(t *CPUSet) bool { return s.bits == t.bits }

// Count gives the number of CPUs in the set.
func (s *CPUSet) Count() int {
	n := 0
	for _, w := range s.bits[:s.top] {
		n += bits.OnesCount64(w)
	}
	return n
}

// Next gives the first CPU of the set that is not below n, or -1.
func (s *CPUSet) Next(n int) int {
	for i := n / 64; i < s.top; i++ {
		w := s.bits[i]
		if i == n/64 {
			w &^= 1<<(n%64) - 1
		}
		if w != 0 {
			return i*64 + bits.TrailingZeros64(w)
		}
	}
	return -1
}

// end is above every CPU of the set.
func (s *CPUSet) end() int {
	for i := s.top - 1; i >= 0; i-- {
		if w := s.bits[i]; w != 0 {
			return i*64 + bits.Len64(w)
		}
	}
	return 0
}

// nextAround is Next, and from the beginning again behind the last CPU.
func (s *CPUSet) nextAround(n int) int {
	if next := s.Next(n); next >= 0 {
		return next
	}
	return s.Next(0)
}

// Intersect keeps only what is in t too.
func (s *CPUSet) Intersect(t *CPUSet) {
	for i := range s.bits[:s.top] {
		s.bits[i] &= t.bits[i]
	}
}

// Subtract drops what is in t.
func (s *CPUSet) Subtract(t *CPUSet) {
	for i := range s.bits[:s.top] {
		s.bits[i] &^= t.bits[i]
	}
}

// First keeps only the n lowest CPUs.
func (s *CPUSet) First(n int) {
	for i, w := range s.bits[:s.top] {
		for c := bits.OnesCount64(w); c > n; c-- {
			w &^= 1 << (63 - bits.LeadingZeros64(w))
		}
		s.bits[i] = w
		n -= bits.OnesCount64(w)
	}
}

// Append writes the set in the kernel's list format, without a newline.
func (s *CPUSet) Append(dst []byte) []byte {
	start := len(dst)
	for lo := s.Next(0); lo >= 0; {
		hi := lo
		for s.Has(hi + 1) {
			hi++
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(lo), 10)
		if hi > lo {
			dst = append(dst, '-')
			dst = strconv.AppendInt(dst, int64(hi), 10)
		}
		lo = s.Next(hi + 1)
	}
	return dst
}

// knownCPUs is a set of CPUs as it was at a moment. Of each container there is one: so no more of the set is kept than is in use, a word of 128.
type knownCPUs struct {
	mu   sync.Mutex
	at   time.Time
	bits []uint64
}

func (k *knownCPUs) put(set *CPUSet, at time.Time) {
	k.bits, k.at = append(k.bits[:0], set.bits[:set.top]...), at
}

func (k *knownCPUs) get() (set CPUSet) {
	set.top = copy(set.bits[:], k.bits)
	return set
}
