package main

import (
	"fmt"
	"strconv"
)

// The tables of the scenarios. Times are in µs unless the head says otherwise.

func (r *report) readSheet(w way) sheet {
	s := sheet{
		Title: fmt.Sprintf("%s; %s", w.mode, plural(w.threads, "thread")),
		Note:  "Reads a second of all threads together; times of one read, in µs.",
		Head:  []string{"file", "", "reads/s", "p50", "p99", "p99.9", "daemon's CPU/read", "of a core", "× kernel", "× LXCFS"}, Words: 2,
	}
	for _, file := range r.Files {
		of := func(kind string) *series {
			return r.find(series{Scenario: "read", Kind: kind, File: file, Mode: w.mode, Threads: w.threads})
		}
		for _, k := range titles {
			x := of(k.kind)
			if x == nil {
				continue
			}
			cpu, core := "", ""
			if hasDaemon(k.kind) {
				cpu, core = median(x.of(cpuPerRead), 1e-3), median(x.of(cores), 100)+" %"
			}
			s.Rows = append(s.Rows, []string{shortName(file), k.title, plain(x.of(perSecond)), micros(x.of(p50)), median(x.of(p99), 1e-3), median(x.of(p999), 1e-3),
				cpu, core, median(ratio(x, of(kernel), perSecond), 1), median(ratio(x, of(lxcfs), perSecond), 1)})
		}
	}
	return s
}

func hasDaemon(kind string) bool { return kind != kernel && kind != tmpfs }

func (r *report) fleetSheet() sheet {
	s := sheet{
		Title: "Fleet: every container reads meminfo, stat, uptime and cpu/online once a second",
		Note: "CPU is the daemon's, for a thousand reads (open, read to the end, close). RSS is the daemon's; shared tree and own views are one daemon's. Left out: turns that a reader " +
			"had to leave out, since its last took more than a second.",
		Head: []string{"containers", "", "CPU/1000 reads, ms", "of a core", "RSS, MB", "p50, µs", "p99, µs", "p99.9, µs", "reads", "left out"}, Words: 2,
	}
	for _, k := range titles {
		for _, x := range r.Series {
			if x.Scenario != "fleet" || x.Kind != k.kind {
				continue
			}
			var reads, overruns int64
			for _, m := range x.Samples {
				reads += m.Reads
				overruns += m.Overruns
			}
			cpu, core, memory := "", "", ""
			if hasDaemon(k.kind) {
				cpu, core, memory = micros(x.of(cpuPerRead)), median(x.of(cores), 100)+" %", median(x.of(rss), 1e-6)
			}
			s.Rows = append(s.Rows, []string{thousands(int64(x.Containers)), k.title, cpu, core, memory,
				micros(x.of(p50)), median(x.of(p99), 1e-3), median(x.of(p999), 1e-3), thousands(reads), thousands(overruns)})
		}
	}
	return s
}

func (r *report) noisySheet() sheet {
	s := sheet{
		Title: fmt.Sprintf("Noisy neighbour: one container reads %s in a loop with %d threads, another with one", shortName(r.Files[0]), noisyThreads),
		Note:  "Times of the other's reads, in µs.",
		Head:  []string{"", "p50 alone", "p50 beside it", "×", "p99 alone", "p99 beside it", "×"}, Words: 1,
	}
	for _, k := range titles {
		key := series{Scenario: "noisy", Kind: k.kind, File: r.Files[0], Mode: alone, Threads: 1}
		quiet := r.find(key)
		key.Mode = noise
		loud := r.find(key)
		if quiet == nil || loud == nil {
			continue
		}
		s.Rows = append(s.Rows, []string{k.title, micros(quiet.of(p50)), micros(loud.of(p50)), plain(ratio(loud, quiet, p50)),
			micros(quiet.of(p99)), micros(loud.of(p99)), plain(ratio(loud, quiet, p99))})
	}
	return s
}

func (r *report) bigHostSheet() sheet {
	s := sheet{
		Title: fmt.Sprintf("Big host: a container of 2 CPUs on a host of %d CPUs and %d interrupts, and of %d and %d", smallHost.cpus, smallHost.interrupts, bigHost.cpus, bigHost.interrupts),
		Note: "One thread. Times in µs; CPU is the daemon's, for a read. Reads every 20 ms find no answer that is kept: each is made anew. The host's texts are files. " +
			"A file that exceeds a page on the big host is not kept there: its own view leads to the shared tree.",
		Head: []string{"file", "", "", "p50, small", "p50, big", "×", "CPU, small", "CPU, big", "×"}, Words: 3,
	}
	for _, file := range r.Files {
		for _, mode := range bigHostWays {
			for _, kind := range []string{shared, own} {
				small, big := r.hosted(kind, file, mode, smallHost), r.hosted(kind, file, mode, bigHost)
				if small == nil || big == nil {
					continue
				}
				how := "in a loop"
				if mode == fresh {
					how = "every 20 ms"
				}
				s.Rows = append(s.Rows, []string{shortName(file), title(kind), how, micros(small.of(p50)), micros(big.of(p50)), plain(ratio(big, small, p50)),
					micros(small.of(cpuPerRead)), micros(big.of(cpuPerRead)), plain(ratio(big, small, cpuPerRead))})
			}
		}
	}
	return s
}

func (r *report) churnSheet() sheet {
	s := sheet{
		Title: "Churn: containers come, read every file of every kind, and go",
		Head:  []string{"containers so far", "lensfs: RSS, MB", "descriptors", "LXCFS: RSS, MB", "descriptors"}, Words: 1,
	}
	last := len(r.Churn) - 1
	for i, p := range r.Churn {
		// The beginning, quarters, the end, and some time after it.
		if i != 0 && i < last-1 && i%max(1, (last-1)/4) != 0 {
			continue
		}
		name := thousands(int64(p.Containers))
		if i == last {
			name += ", 10 s later"
		}
		cells := []string{name}
		for _, kind := range []string{shared, lxcfs} {
			if _, ok := p.RSS[kind]; !ok {
				cells = append(cells, "–", "–")
				continue
			}
			cells = append(cells, digits(float64(p.RSS[kind])/1e6), strconv.Itoa(p.FDs[kind]))
		}
		s.Rows = append(s.Rows, cells)
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
