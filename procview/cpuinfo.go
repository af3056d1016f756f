package procview

import (
	"bytes"
	"strconv"
	"sync"

	"lensfs/cgroupview"
	"lensfs/cgroupview/kfile"
)

// Cpuinfo appends /proc/cpuinfo: the host's blocks of the CPUs shown, under their real numbers.
func Cpuinfo(dst []byte, host *Host, container *cgroupview.Container) ([]byte, error) {
	shown, err := container.CPUs()
	if err != nil {
		return dst, err
	}
	info, err := host.cpuinfo.lock(host)
	if err != nil {
		return dst, err
	}
	defer host.cpuinfo.unlock()
	return appendCpuinfo(dst, info, &shown), nil
}

// cpuinfoText is the host's file, read at the start and when CPUs come or go: on x86 to open it interrupts every CPU of the host.
type cpuinfoText struct {
	mu     sync.RWMutex
	online cgroupview.CPUSet
	info   *cpuinfo
}

// lock gives the host's cpuinfo, which stands until unlock; that is due when err is nil.
func (t *cpuinfoText) lock(host *Host) (*cpuinfo, error) {
	online, err := host.resolver.Online()
	if err != nil {
		return nil, err
	}
	t.mu.RLock()
	if t.info != nil && t.online.Equal(&online) {
		return t.info, nil
	}
	t.mu.RUnlock()
	if err := t.read(host, online); err != nil {
		return nil, err
	}
	t.mu.RLock()
	return t.info, nil
}

func (t *cpuinfoText) unlock() { t.mu.RUnlock() }

func (t *cpuinfoText) read(host *Host, online cgroupview.CPUSet) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b kfile.Buffer
	text, err := host.proc.Append(&b, nil, "", "cpuinfo")
	if err != nil {
		return host.proc.Wrap(err, "", "cpuinfo")
	}
	t.info, t.online = parseCpuinfo(text), online
	return nil
}

// cpuinfo is the host's text cut into the part before the CPUs' blocks, a block for each CPU, and what follows (arm: Hardware, Revision).
type cpuinfo struct {
	text   []byte
	head   []byte
	blocks []cpuBlock // by CPU number; one without text is not there
	tail   []byte
	all    cgroupview.CPUSet
}

// maxPackages bounds the counters that one rendering holds.
const maxPackages = 1024

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

// appendCpuinfo writes the blocks of the CPUs shown; all of the host's: its own text. The cost is that of what is shown.
func appendCpuinfo(dst []byte, info *cpuinfo, shown *cgroupview.CPUSet) []byte {
	if shown.Equal(&info.all) || info.all.Next(0) < 0 {
		return append(dst, info.text...)
	}
	start := len(dst)
	dst = info.appendHead(dst, shown)
	count := info.count(shown)
	for n := shown.Next(0); n >= 0 && n < len(info.blocks); n = shown.Next(n + 1) {
		dst = info.blocks[n].append(dst, &count)
	}
	if len(info.tail) == 0 && endsBlank(dst[start:]) && !endsBlank(info.text) {
		dst = dst[:len(dst)-1] // s390x: blank lines stand between the blocks, and the host's last one is not shown
	}
	return append(dst, info.tail...)
}

func endsBlank(text []byte) bool {
	n := len(text)
	return n >= 2 && text[n-2] == '\n' && text[n-1] == '\n'
}

// shownOf counts, for each package, the threads and cores that are shown.
type shownOf struct{ threads, cores [maxPackages]uint16 }

func (info *cpuinfo) count(shown *cgroupview.CPUSet) (count shownOf) {
	var seen cgroupview.CPUSet
	for n := shown.Next(0); n >= 0 && n < len(info.blocks); n = shown.Next(n + 1) {
		b := &info.blocks[n]
		if b.pkg < 0 {
			continue
		}
		count.threads[b.pkg]++
		if !seen.Has(b.core) {
			seen.Add(b.core)
			count.cores[b.pkg]++
		}
	}
	return count
}

// append writes one block, with its package's threads and cores as counted.
func (b *cpuBlock) append(dst []byte, count *shownOf) []byte {
	if b.pkg < 0 {
		return append(dst, b.text...)
	}
	at := 0
	// In the order of x86's and s390x's lines, the only architectures that have them.
	for _, v := range [...]struct {
		span
		n uint16
	}{{b.siblings, count.threads[b.pkg]}, {b.cores, count.cores[b.pkg]}} {
		if v.from < at || v.to == 0 {
			continue
		}
		dst = append(dst, b.text[at:v.from]...)
		dst = strconv.AppendUint(dst, uint64(v.n), 10)
		at = v.to
	}
	return append(dst, b.text[at:]...)
}

// appendHead writes s390x's head: "# processors" counts the CPUs, and each has a line.
func (info *cpuinfo) appendHead(dst []byte, shown *cgroupview.CPUSet) []byte {
	rest := info.head
	for len(rest) > 0 {
		var line []byte
		line, rest = kfile.Line(rest)
		if n, ok := summaryNumber(line); ok {
			if !shown.Has(n) {
				continue
			}
		} else if colon := bytes.IndexByte(line, ':'); colon >= 0 && bytes.HasPrefix(line, []byte("# processors")) {
			dst = append(append(dst, line[:colon+1]...), ' ')
			dst = strconv.AppendInt(dst, int64(shown.Count()), 10)
			dst = append(dst, '\n')
			continue
		}
		dst = append(append(dst, line...), '\n')
	}
	return dst
}
