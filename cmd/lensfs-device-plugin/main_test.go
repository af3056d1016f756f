package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lensfs/oci/deviceplugin/kubelettest"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// start runs the command until stop is called, which gives its error.
func start(args ...string) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct{ args, says string }{
		{"--device some", `--device: all or full, not "some"`},
		{"--count 0", "--count: from 1 to 10000, not 0"},
		{"--count -1", "not -1"},
		{"--count 10001", "not 10001"},
		{"--count many", "invalid argument"},
		{"--views run/lensfs", "absolute paths"},
		{"--plugin-dir .", "absolute paths"},
		{"--cdi /etc/cdi/lensfs", "end in .json"},
		{"--cdi " + file + "/lensfs.json", "--cdi: mkdir " + file + ": not a directory"},
		{"--cdi " + dir + "/lensfs.json --program lensfs", "not an absolute path"},
		{"serve", "unknown command"},
	} {
		cmd := command()
		cmd.SetArgs(append([]string{"--plugin-dir", dir}, strings.Fields(bad.args)...))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // it would run on
		err := cmd.ExecuteContext(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %v", bad.args, err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("it has made something: %v, %v", left, err)
	}
}

// The spec that it writes has the device that it names.
func TestTheDeviceIsInTheSpec(t *testing.T) {
	dir, views := t.TempDir(), t.TempDir()
	if err := os.Symlink("elsewhere", filepath.Join(views, "self")); err != nil { // what a daemon has there
		t.Fatal(err)
	}
	k, err := kubelettest.Start(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Stop()
	file := filepath.Join(t.TempDir(), "cdi", "lensfs.json")
	stop := start("--plugin-dir", dir, "--views", views, "--count", "2", "--cdi", file)
	p := <-k.Plugins()
	devices := <-p.Lists()
	if len(devices) != 2 || devices[0].Health != "Healthy" {
		t.Errorf("it has %v", devices)
	}
	answer, err := p.Allocate(t.Context(), devices[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	spec, err := cdi.ReadSpec(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _, name, err := parser.ParseQualifiedName(answer.CdiDevices[0].Name)
	if err != nil || spec.GetDevice(name) == nil || spec.Kind+"="+name != answer.CdiDevices[0].Name {
		t.Errorf("containers get %v, of which the spec does not know", answer)
	}
	if m := spec.GetDevice(name).ContainerEdits.Mounts; len(m) < 8 || !strings.HasPrefix(m[0].HostPath, views+"/self/proc/") {
		t.Errorf("it mounts %v", m)
	}
}

// What gRPC brings is not to be in every process of the daemon's. (Its codes and their texts are, as ttrpc, which NRI speaks, has them.)
func TestTheDaemonHasNoGRPC(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "lensfs/cmd/lensfs").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if slices.Contains(deps, "google.golang.org/grpc") || slices.Contains(deps, "lensfs/oci/deviceplugin") || !slices.Contains(deps, "lensfs/oci") {
		t.Errorf("lensfs imports it")
	}
}
