//go:build unix

package ledger

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockFile takes the lock that bbolt would take, before bbolt reads anything, and gives up when ctx ends.
func lockFile(ctx context.Context, f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockHolder names the process that has f locked. It asks the kernel, through /proc/locks, instead of keeping a file with
// the owner's number beside the ledger: such a file survives a crash and then names a stranger. Where the kernel does not
// say (not Linux, or the process is in another container), it says only that there is one.
func lockHolder(f *os.File) string {
	const someone = "another process"
	info, err := f.Stat()
	if err != nil {
		return someone
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return someone
	}
	file := deviceAndInode(uint64(stat.Dev), stat.Ino) //nolint:unconvert // Dev is an int32 on Darwin
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return someone
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK ADVISORY WRITE 4711 fd:01:131 0 EOF
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != file {
			continue
		}
		if name, err := os.ReadFile("/proc/" + field[4] + "/comm"); err == nil {
			return "process " + field[4] + " (" + strings.TrimSpace(string(name)) + ")"
		}
		return "process " + field[4]
	}
	return someone
}

// deviceAndInode spells a file as /proc/locks does.
func deviceAndInode(device, inode uint64) string {
	major := (device>>8)&0xfff | (device>>32)&^0xfff
	minor := device&0xff | (device>>12)&^0xff
	return fmt.Sprintf("%02x:%02x:", major, minor) + strconv.FormatUint(inode, 10)
}
