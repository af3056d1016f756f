package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// endWithTest has a command told to end, and if need be killed, when the test is over.
func endWithTest(t *testing.T, c *exec.Cmd) {
	t.Cleanup(func() {
		t.Helper()
		c.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience(10*time.Second), func() {
			c.Process.Kill()
			t.Errorf("%v did not end when it was told to", c.Args)
		})
		c.Wait()
		kill.Stop()
	})
}

// command runs a program, for no longer than half a minute, in the virtual machine two, and fails the test if it does not succeed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return out
}

func tryCommand(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds(30, 120))*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(err, ctx.Err(), errors.New(strings.TrimSpace(errs.String()+out.String())))
	}
	return out.String(), nil
}

// tempDir is t.TempDir beneath runDir, with a mode that other users get through.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(runDir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// logFile is what a daemon writes. Not a pipe: its worker may hold that for longer than the daemon is there.
type logFile struct{ file *os.File }

func newLogFile(t *testing.T) *logFile {
	t.Helper()
	file, err := os.CreateTemp(runDir, "log-")
	if err != nil {
		t.Fatal(err)
	}
	return &logFile{file}
}

func (l *logFile) String() string {
	text, err := os.ReadFile(l.file.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logBuffer is what a command writes, readable while it does.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
