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

// maxPackages bounds the counters that one rendering holds.
const maxPackages = 1024

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
