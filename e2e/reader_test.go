package e2e

import "fmt"

// play is what this test binary does inside of a container: the roles that tests start it in, by LENSFS_TEST_ROLE. A process must never read
// files of a mount that it serves itself, and has to be in a container to be anybody there: so readers are always other processes.
func play(role string) int {
	fmt.Println("unknown role", role)
	return 2
}
