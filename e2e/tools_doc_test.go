package e2e

import (
	"fmt"
	"strings"
)

// text is docs/tools.md.
func (doc *toolsDoc) text() string {
	var s strings.Builder
	row := func(cells ...string) { fmt.Fprintf(&s, "| %s |\n", strings.Join(cells, " | ")) }
	table := func(columns ...string) {
		row(columns...)
		s.WriteString("|" + strings.Repeat("---|", len(columns)) + "\n")
	}
	cells := func(in map[string]string, columns []string) []string {
		var c []string
		for _, column := range columns {
			c = append(c, in[column])
		}
		return c
	}

	s.WriteString(toolsHead)
	table(append([]string{"tool"}, figures...)...)
	for _, tool := range tools {
		if in := doc.shown[tool.name]; in != nil && tool.asks == "" {
			row(append([]string{"`" + tool.name + "`"}, cells(in, figures)...)...)
		}
	}
	s.WriteString(toolsLoad)
	table(append([]string{"tool"}, loadColumns()...)...)
	for _, tool := range loadTools {
		if in := doc.loaded[tool.name]; in != nil {
			row(append([]string{"`" + tool.name + "`"}, cells(in, loadColumns())...)...)
		}
	}
	s.WriteString(toolsAsk)
	table(append([]string{"tool", "asks by"}, figures...)...)
	for _, tool := range tools {
		if in := doc.shown[tool.name]; in != nil && tool.asks != "" {
			row(append([]string{tool.name, tool.asks}, cells(in, figures)...)...)
		}
	}
	s.WriteString(toolsSize)
	table(append([]string{"program", "takes", "asks"}, sizeColumns()...)...)
	for _, tool := range sizeTools {
		if in := doc.sized[tool.row()]; in != nil {
			row(append([]string{tool.row()}, cells(in, sizeColumns())...)...)
		}
	}
	s.WriteString(toolsFoot)
	return s.String()
}

const toolsHead = `# What tools show in a container

Made by the test that runs them: ` + "`go test ./e2e -run TestTools -update`" + `, in LXC with Debian's packages inside, and in ` + "`lensfs run`" + ` with the host's; on both mounts. It fails
when a tool complains, or when it shows something else than is written here.

## Size and age

A container of 512 MB and the time of one CPU (a quota; it may run on all CPUs), on a larger host. *own*: the container's, checked against its limits and the age of its init.

`

const toolsLoad = `
## CPU time

One task burns all the time that the container gets, and each tool looks for two seconds: what it shows is what the cgroup used and was kept from in such a time (± 5 %),
and no CPU is shown above 100 % or below 0. The figures here are those of a host with nothing else to do. LXC's containers read own views, those of lensfs run the shared tree.

`

const toolsAsk = `
## Where files do not reach

These ask the kernel by a system call, or for something that stays the host's. A limit by CPU set does show in the affinity: ` + "`--cpuset`" + ` instead of a quota.

`

const toolsSize = `
## Programs that size themselves

What servers and runtimes of Debian 12 take for themselves in an LXC container of 512 MB, which has one CPU of a larger host in one of two ways. What asks by a system call gets CPUs right
where the limit is a CPU set, and memory never. Java looks into its cgroup by itself, where cgroups are mounted in the container, as systemd does.

`

const toolsFoot = `
What is not in the tables:

- ` + "`vmstat`" + ` shows the host's paging and swapping (` + "`bi bo si so`, from `/proc/vmstat`" + `), interrupts and context switches (` + "`in cs`" + `: ` + "`/proc/stat`" + ` has the host's).
- ` + "`iostat`" + ` takes its devices from ` + "`/sys/block`" + `: the host's. ` + "`/proc/diskstats`" + ` has the container's.
- ` + "`ps -o etime,%cpu`" + ` of procps 4.0.2 subtracts a process's start, which the kernel counts from the host's boot, from the container's uptime: nonsense, as with LXCFS.
  ` + "`lstart`, `stime` and `time`" + ` are right.
- ` + "`lscpu`" + ` counts the CPUs that are switched off, too, in its line ` + "`CPU(s)`" + `; the line on-line has the container's.
- ` + "`lensfs serve --hide-cpus`" + ` takes the directories of the CPUs not shown away, for those that count these.
`
