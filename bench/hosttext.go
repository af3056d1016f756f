package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// write writes the host's texts beneath root: this machine's, with another number of CPUs and interrupts.
func (h hostSize) write(root string) error {
	texts := map[string][]byte{}
	for _, file := range []string{"proc/meminfo", "proc/uptime", "proc/loadavg", "proc/diskstats", "proc/swaps", "proc/vmstat", "proc/version"} {
		if text, err := os.ReadFile("/" + file); err == nil {
			texts[file] = text
		}
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return err
	}
	texts["proc/cpuinfo"], texts["proc/stat"] = h.cpuinfo(string(cpuinfo)), h.stat(string(stat))
	for _, list := range []string{"online", "possible", "present"} {
		texts["sys/devices/system/cpu/"+list] = fmt.Appendf(nil, "0-%d\n", h.cpus-1)
	}
	texts["sys/devices/system/cpu/kernel_max"] = []byte("8191\n")
	texts["sys/devices/system/cpu/offline"] = []byte("\n")
	for file, text := range texts {
		at := filepath.Join(root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, text, 0o444)); err != nil {
			return err
		}
	}
	return nil
}

// cpuinfo repeats the first CPU's block.
func (h hostSize) cpuinfo(text string) []byte {
	block, _, _ := strings.Cut(text, "\n\n")
	var out bytes.Buffer
	for cpu := range h.cpus {
		for line := range strings.Lines(block + "\n") {
			label, _, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(label) {
			case "processor", "core id", "apicid", "initial apicid":
				line = fmt.Sprintf("%s: %d\n", label, cpu)
			case "siblings", "cpu cores":
				line = fmt.Sprintf("%s: %d\n", label, h.cpus)
			}
			out.WriteString(line)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// stat repeats the first CPU's line, and has as many interrupts.
func (h hostSize) stat(text string) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "cpu0 "):
			for cpu := range h.cpus {
				fmt.Fprintf(&out, "cpu%d %s", cpu, strings.TrimPrefix(line, "cpu0 "))
			}
		case strings.HasPrefix(line, "cpu") && !strings.HasPrefix(line, "cpu "):
		case strings.HasPrefix(line, "intr "):
			fmt.Fprintf(&out, "intr %d%s\n", 1000*h.interrupts, strings.Repeat(" 1000", h.interrupts))
		default:
			out.WriteString(line)
		}
	}
	return out.Bytes()
}
