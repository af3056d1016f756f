package e2e

import (
	"fmt"
	"os"
	"time"
)

// roles are what this test binary does inside of a container, started by a test with asRole. A process must never read files of a mount that it
// serves itself, and has to be in a container to be anybody there: so readers are always other processes. Files add to it in their init.
var roles = map[string]func(args []string) error{}

// roleLimit ends a role that a test forgot.
const roleLimit = 10 * time.Minute

// enough is how many times a role tries at the least what it tries for some seconds: an emulated machine may be slow.
const enough = 3

// growUp waits until the container is old enough for its texts to be kept: for a second they never are.
func growUp() error {
	for {
		up, err := uptimeOf("/proc/uptime")
		if err != nil || up > 1.1 {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// asRole is the command line that plays a role.
func asRole(role string, args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{"env", "LENSFS_TEST_ROLE=" + role, self}, args...)
}

// play is TestMain in a container.
func play(role string) int {
	time.AfterFunc(roleLimit, func() { os.Exit(3) })
	f := roles[role]
	if f == nil {
		fmt.Fprintln(os.Stderr, "unknown role", role)
		return 2
	}
	if err := f(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		return 1
	}
	return 0
}
