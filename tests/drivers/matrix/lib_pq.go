// lib/pq in the matrix.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/lib/pq"
)

var background = context.Background()

// connect gives one connection of a pool of its own.
func connect() (*sql.DB, *sql.Conn) {
	db, err := sql.Open("postgres", conninfo())
	check(err)
	conn, err := db.Conn(background)
	check(err)
	for _, text := range setUp() {
		_, err = conn.ExecContext(background, text)
		check(err)
	}
	return db, conn
}

func (w *Worker) look(conn *sql.Conn) {
	var state, server, statements, mood string
	check(conn.QueryRowContext(background, stateSQL()).Scan(&state, &server, &statements, &mood))
	w.checkState(state, server, statements, mood)
}

func transactions(w *Worker) {
	_, conn := connect()
	put, err := conn.PrepareContext(background, insertSQL)
	check(err)
	see, err := conn.PrepareContext(background, countSQL)
	check(err)
	count := func(n int) (found int) {
		check(see.QueryRow(name, w.name, n).Scan(&found))
		return
	}
	for w.next() {
		n := w.Rounds
		tx, err := conn.BeginTx(background, nil)
		check(err)
		_, err = tx.Stmt(put).Exec(name, w.name, n)
		check(err)
		var found int
		check(tx.Stmt(see).QueryRow(name, w.name, n).Scan(&found))
		expect("the count in the transaction", found, 1)
		check(tx.Commit())
		w.acknowledge(int64(n))
		tx, err = conn.BeginTx(background, nil)
		check(err)
		_, err = tx.Stmt(put).Exec(name, w.name, -n)
		check(err)
		_, err = tx.Exec("select 1 / $1::int", 0)
		var problem *pq.Error
		expect("the error of a division", errors.As(err, &problem) && problem.Code == "22012", true)
		check(tx.Rollback())
		expect("what was rolled back", count(-n), 0)
		expect("the last commit", count(n), 1)
		w.look(conn)
	}
}

func copyRowsIn(w *Worker) {
	_, conn := connect()
	for w.next() {
		tx, err := conn.BeginTx(background, nil)
		check(err)
		in, err := tx.Prepare(pq.CopyIn("matrix_entry", "driver", "worker", "n"))
		check(err)
		numbers := w.copied()
		for _, n := range numbers {
			_, err = in.Exec(name, w.name, n)
			check(err)
		}
		_, err = in.Exec()
		check(err)
		check(in.Close())
		check(tx.Commit())
		w.acknowledge(numbers...)
		w.look(conn)
	}
}

func notify(w *Worker) {
	listener := pq.NewListener(conninfo(), time.Second, time.Second, func(event pq.ListenerEventType, err error) {
		if event != pq.ListenerEventConnected {
			panic(fmt.Errorf("the listener's connection broke: %v", err))
		}
	})
	check(listener.Listen(name))
	_, conn := connect()
	for w.next() {
		_, err := conn.ExecContext(background, "select pg_notify($1, $2)", name, strconv.Itoa(w.Rounds))
		check(err)
		select {
		case got := <-listener.Notify:
			if got == nil {
				panic("the listener connected anew")
			}
			expect("the notification", got.Extra, strconv.Itoa(w.Rounds))
		case <-time.After(notifyPatience):
			w.Lost++
		}
		check(listener.Ping())
		w.look(conn)
	}
}

// lib/pq gives up a connection that it cancelled, so this worker logs in for each.
func cancel(w *Worker) {
	for w.next() {
		db, conn := connect()
		w.look(conn)
		begun := time.Now()
		limited, done := context.WithTimeout(background, cancelAfter)
		_, err := conn.ExecContext(limited, "select pg_sleep(5)")
		done()
		var problem *pq.Error
		if !errors.As(err, &problem) || problem.Code != "57014" || time.Since(begun) > sleepLimit {
			panic(fmt.Errorf("the cancel did not arrive: %v after %v", err, time.Since(begun)))
		}
		check(db.Close())
	}
}

func logins(w *Worker) {
	for w.next() {
		db, conn := connect()
		_, err := conn.ExecContext(background, insertSQL, name, w.name, w.Rounds)
		check(err)
		w.acknowledge(int64(w.Rounds))
		w.look(conn)
		check(conn.Close())
		check(db.Close())
	}
}

func main() {
	run(map[string]func(*Worker){
		"transactions": transactions, "copy": copyRowsIn, "notify": notify, "cancel": cancel, "logins": logins})
}
