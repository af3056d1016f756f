// Command bench does the same work on the kernel's own files, on LXCFS and on lensfs, side by side in one run, and says how they compare.
// It knows lensfs only from outside: the program, and the files that it mounts.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// roleVar says in which of its roles this program was started by itself.
const roleVar = "LENSFS_BENCH_ROLE"

func main() {
	switch role := os.Getenv(roleVar); role {
	case "":
		os.Exit(outer(os.Args[1:]))
	case "run":
		os.Exit(inner(os.Args[1:]))
	case "container":
		os.Exit(inside())
	case "empty":
		os.Exit(serveEmpty(os.Args[1:]))
	default:
		fmt.Fprintf(os.Stderr, "bench: %s=%s: no such role\n", roleVar, role)
		os.Exit(2)
	}
}

// config is what was asked for, and how much work that means.
type config struct {
	quick, strict bool
	rounds        int
	files         []string // beneath a root: proc/meminfo
	scenarios     []string
	lensfs, lxcfs string
	out, doc      string
	from          string // a report made earlier, to be drawn anew

	span         time.Duration // of one measurement of a reader in a loop
	fleets       []int         // numbers of containers
	fleetSpan    time.Duration
	fleetRounds  int
	noisySpan    time.Duration
	waves, crowd int // of churn: how often how many containers come and go
	loadCrowd    int // of load: containers
	loadCounts   int // how many counts of their tasks are measured
}

// scenarioNames, in the order in which they run.
var scenarioNames = []string{"read", "fleet", "noisy", "bighost", "churn", "load", "stall"}

func parseFlags(args []string) (config, error) {
	var c config
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.BoolVar(&c.quick, "quick", false, "a run of less than a minute: does it work, and does the direction hold?")
	f.BoolVar(&c.strict, "strict", false, "exit status 1 when a goal is missed (with -quick: by far)")
	f.IntVar(&c.rounds, "rounds", 0, "how often everything is measured (default 9; with -quick 2; the fleet 3 and 1)")
	files := f.String("files", "meminfo,cpuinfo,stat,uptime,loadavg,diskstats,swaps,cpu/online", "the `files` to read, by commas")
	fleets := f.String("fleets", "", "the numbers of containers of the fleet, by commas (default 10,100,1000; with -quick 10,100)")
	scenarios := f.String("scenarios", strings.Join(scenarioNames, ","), "the `scenarios` to run, by commas")
	f.StringVar(&c.lensfs, "lensfs", "out/lensfs", "the lensfs `program`")
	f.StringVar(&c.lxcfs, "lxcfs", "lxcfs", "the LXCFS `program`; \"\" for none")
	f.StringVar(&c.out, "out", "bench/out", "write report.json and report.html into this `directory`")
	f.StringVar(&c.doc, "doc", "", "write the run as Markdown into this `file`")
	f.StringVar(&c.from, "from", "", "measure nothing: write the pages of an earlier report.json, this `file`, anew")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q: there are flags only", f.Args())
	}
	for name := range strings.SplitSeq(*files, ",") {
		c.files = append(c.files, fullName(name))
	}
	c.scenarios = strings.Split(*scenarios, ",")
	for _, s := range c.scenarios {
		if !slices.Contains(scenarioNames, s) {
			return c, fmt.Errorf("-scenarios %s: there are %s", s, strings.Join(scenarioNames, ", "))
		}
	}
	c.amount()
	if *fleets == "" {
		return c, nil
	}
	c.fleets = nil
	for word := range strings.SplitSeq(*fleets, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n <= 0 || len(c.fleets) > 0 && n <= c.fleets[len(c.fleets)-1] {
			return c, fmt.Errorf("-fleets %s: numbers of containers, each greater than the one before", *fleets)
		}
		c.fleets = append(c.fleets, n)
	}
	return c, nil
}

// amount sets how much is done: about ten minutes, or less than one. Many short rounds are better than a few long ones: what else happens on
// the machine then falls on all kinds alike.
func (c *config) amount() {
	rounds := 9
	c.span, c.noisySpan, c.fleetSpan = 200*time.Millisecond, 700*time.Millisecond, 4*time.Second
	c.fleets, c.fleetRounds = []int{10, 100, 1000}, 3
	c.waves, c.crowd = 20, 100
	c.loadCrowd, c.loadCounts = 1000, 5
	if c.quick {
		rounds = 2
		c.span, c.noisySpan, c.fleetSpan = 40*time.Millisecond, 200*time.Millisecond, time.Second
		c.fleets, c.fleetRounds = []int{10, 100}, 1
		c.waves, c.crowd = 4, 20
		c.loadCrowd, c.loadCounts = 20, 1
	}
	if c.rounds <= 0 {
		c.rounds = rounds
	}
}

// fullName gives a file's place beneath a root. A person writes meminfo and cpu/online.
func fullName(name string) string {
	name = strings.Trim(name, "/")
	switch {
	case strings.HasPrefix(name, "proc/"), strings.HasPrefix(name, "sys/"):
		return name
	case strings.HasPrefix(name, "cpu/"):
		return "sys/devices/system/" + name
	default:
		return "proc/" + name
	}
}

// shortName is the reverse of fullName.
func shortName(file string) string {
	return strings.TrimPrefix(strings.TrimPrefix(file, "proc/"), "sys/devices/system/")
}

// fail says what went wrong and gives the exit status.
func fail(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}
