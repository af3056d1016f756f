package procview

import (
	"bytes"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// cpuinfo is the host's text cut into the part before the CPUs' blocks, a block for each CPU, and what follows (arm: Hardware, Revision).
type cpuinfo struct {
	text   []byte
	head   []byte
	blocks []cpuBlock // by CPU number; one without text is not there
	tail   []byte
	all    cgroupview.CPUSet
}

// cpuBlock is one CPU's text. The values of two of its lines count CPUs, and so depend on which are shown.
type cpuBlock struct {
	text      []byte
	summary   []byte // s390x: its "processor N:" line in the head
	siblings  span   // threads of its package
	cores     span   // "cpu cores": cores of its package
	pkg, core int    // its package, and its core among all of the host, counted from 0; -1 where the architecture does not say
}

// span is where a value stands in a text; from 0 to 0 where it does not.
type span struct{ from, to int }

// parseCpuinfo cuts the text. Blocks end at blank lines. s390x has all its "processor 0: version = …" lines in the first block, and then one
// block a CPU that starts with "cpu number".
func parseCpuinfo(text []byte) *cpuinfo {
	info := &cpuinfo{text: text}
	var seen topology
	rest := text
	for len(rest) > 0 {
		block := rest
		if i := bytes.Index(rest, []byte("\n\n")); i >= 0 {
			block, rest = rest[:i+2], rest[i+2:]
		} else {
			rest = nil
		}
		n, ok := blockNumber(block)
		switch {
		case ok:
			b := info.block(n)
			b.text = block
			b.parse(&seen)
			info.all.Add(n)
		case len(info.blocks) == 0 && info.head == nil:
			info.head = block
			info.parseSummaries()
		default:
			info.tail = append(info.tail, block...)
		}
	}
	return info
}

// blockNumber reads the first line of a CPU's block: "processor\t: 7", or "cpu number      : 7" on s390x.
func blockNumber(block []byte) (int, bool) {
	line, _ := kfile.Line(block)
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return 0, false
	}
	if key := string(kfile.Trim(name)); key != "processor" && key != "cpu number" {
		return 0, false
	}
	n, ok := kfile.Uint(kfile.Trim(value))
	return int(n), ok && n < cgroupview.MaxCPUs
}

func (info *cpuinfo) block(n int) *cpuBlock {
	for len(info.blocks) <= n {
		info.blocks = append(info.blocks, cpuBlock{pkg: -1, core: -1})
	}
	return &info.blocks[n]
}

// parseSummaries finds the lines of s390x's head that speak of one CPU each.
func (info *cpuinfo) parseSummaries() {
	rest := info.head
	for len(rest) > 0 {
		var line []byte
		line, rest = kfile.Line(rest)
		if n, ok := summaryNumber(line); ok {
			info.block(n).summary = line
		}
	}
}

// summaryNumber reads "processor 3: version = FF, …".
func summaryNumber(line []byte) (int, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return 0, false
	}
	number, ok := bytes.CutPrefix(name, []byte("processor "))
	if !ok {
		return 0, false
	}
	n, ok := kfile.Uint(number)
	return int(n), ok && n < cgroupview.MaxCPUs
}

// socket names a package. On s390x sockets are numbered within a book, and books within a drawer.
type socket struct{ drawer, book, physical uint64 }

// topology counts the packages and cores of the host as they are met. Core ids are numbered within a package.
type topology struct {
	packages map[socket]int
	cores    map[socketCore]int
}

type socketCore struct {
	socket
	core uint64
}

// parse finds the block's package and core, numbering those met for the first time, and the values that count CPUs.
func (b *cpuBlock) parse(seen *topology) {
	var at socketCore
	var hasPhysical, hasCore bool
	for start := 0; start < len(b.text); {
		line, _ := kfile.Line(b.text[start:])
		if colon := bytes.IndexByte(line, ':'); colon >= 0 {
			from := start + colon + 1
			for from < start+len(line) && b.text[from] == ' ' {
				from++
			}
			value := span{from, start + len(line)}
			number, ok := kfile.Uint(b.text[value.from:value.to])
			switch string(kfile.Trim(line[:colon])) {
			case "siblings":
				b.siblings = value
			case "cpu cores":
				b.cores = value
			case "physical id":
				at.physical, hasPhysical = number, ok
			case "core id":
				at.core, hasCore = number, ok
			case "book id":
				at.book = number
			case "drawer id":
				at.drawer = number
			}
		}
		start += len(line) + 1
	}
	if !hasPhysical || !hasCore {
		return
	}
	pkg, core := seen.number(at)
	if pkg < maxPackages && core < cgroupview.MaxCPUs {
		b.pkg, b.core = pkg, core
	}
}

func (t *topology) number(at socketCore) (pkg, core int) {
	if t.packages == nil {
		t.packages, t.cores = map[socket]int{}, map[socketCore]int{}
	}
	pkg, ok := t.packages[at.socket]
	if !ok {
		pkg = len(t.packages)
		t.packages[at.socket] = pkg
	}
	core, ok = t.cores[at]
	if !ok {
		core = len(t.cores)
		t.cores[at] = core
	}
	return pkg, core
}
