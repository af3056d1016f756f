package e2e

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { roles["tarpit"] = tarpit }

// tarpit serves a file system on a directory that takes every LOOKUP and answers none: who has asked waits in the kernel, where no signal reaches him.
func tarpit(args []string) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Mount("tarpit", args[0], "fuse.tarpit", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)); err != nil {
		return err
	}
	fmt.Println("ready")
	request := make([]byte, 256<<10)
	for {
		n, err := unix.Read(fd, request)
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil || n < 40 {
			continue
		}
		unique := endian.NativeEndian.Uint64(request[8:])
		var body []byte
		failed := int32(0)
		switch opcode := endian.NativeEndian.Uint32(request[4:]); opcode { // include/uapi/linux/fuse.h
		case 1, 2, 36, 42: // LOOKUP; FORGET, INTERRUPT and BATCH_FORGET want no answer
			continue
		case 3: // GETATTR, of the root
			body = make([]byte, 16+88)
			endian.NativeEndian.PutUint64(body, 3600)
			endian.NativeEndian.PutUint64(body[16:], 1)
			endian.NativeEndian.PutUint32(body[16+60:], unix.S_IFDIR|0o755)
			endian.NativeEndian.PutUint32(body[16+64:], 2)
		case 26: // INIT
			body = make([]byte, 64)
			endian.NativeEndian.PutUint32(body, 7)
			endian.NativeEndian.PutUint32(body[4:], 31)
			endian.NativeEndian.PutUint32(body[20:], 4096)
		default:
			failed = -int32(unix.ENOSYS)
		}
		answer := endian.NativeEndian.AppendUint32(nil, uint32(16+len(body)))
		answer = endian.NativeEndian.AppendUint32(answer, uint32(failed))
		answer = append(endian.NativeEndian.AppendUint64(answer, unique), body...)
		if _, err := unix.Write(fd, answer); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
}

// What goes into a container may get stuck for good, so that not even a kill ends it. The command does not wait for it.
func TestAttachTarpit(t *testing.T) {
	skipSlow(t)
	needRoot(t)
	d := serve(t)
	pit := tempDir(t)
	// It serves its own root, in its own mount namespace: others look at what the host has mounted.
	b := startBare(t, newGroup(t, memoryLimit(200<<20)), fmt.Sprintf(`set -e
%s >/dev/null &
while ! grep -q tarpit /proc/self/mountinfo; do sleep 0.1; done
cd %s
pivot_root . .
cd /
echo ready
read wait || :`, shell(asRole("tarpit", pit)), pit))
	begin := time.Now()
	out, err := d.attach(strconv.Itoa(b.init))
	took := time.Since(begin)
	unix.Kill(b.init, unix.SIGKILL) // and with it the server, of whom what it has taken goes back
	if err == nil || !strings.Contains(out, "does not answer, and process") {
		t.Errorf("%v %s", err, out)
	}
	if took > 25*time.Second*time.Duration(rounds(1, 3)) {
		t.Errorf("it took %v", took)
	}
	t.Log(took, attachWords(out, b.init))
	noneLeft(t)
	d.onHostOnce()
	d.alive()
}
