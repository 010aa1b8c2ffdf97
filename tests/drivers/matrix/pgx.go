// pgx in the matrix: everything prepared and in binary, its own implementation of the protocol.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

var background = context.Background()

func connect() *pgx.Conn {
	conn, err := pgx.Connect(background, conninfo())
	check(err)
	for _, text := range setUp() {
		_, err = conn.Exec(background, text)
		check(err)
	}
	return conn
}

func (w *Worker) look(conn *pgx.Conn) {
	var state, server, statements, mood string
	check(conn.QueryRow(background, stateSQL()).Scan(&state, &server, &statements, &mood))
	w.checkState(state, server, statements, mood)
}

func hasCode(err error, code string) bool {
	var problem *pgconn.PgError
	return errors.As(err, &problem) && problem.Code == code
}

func checkTypes(conn *pgx.Conn) {
	moment := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	var text string
	var raw []byte
	var when time.Time
	var numbers []int64
	check(conn.QueryRow(background, "select $1::text, $2::bytea, $3::timestamptz, $4::int8[]", "zürich", []byte{0, 1, 255}, moment,
		[]int64{1, 2, 3}).Scan(&text, &raw, &when, &numbers))
	expect("a text", text, "zürich")
	expect("a bytea", bytes.Equal(raw, []byte{0, 1, 255}), true)
	expect("a timestamp", when.Equal(moment), true)
	expect("an array", fmt.Sprint(numbers), "[1 2 3]")
}

func transactions(w *Worker) {
	conn := connect()
	count := func(n int) (found int) {
		check(conn.QueryRow(background, countSQL, name, w.name, n).Scan(&found))
		return
	}
	for w.next() {
		n := w.Rounds
		check(conn.BeginFunc(background, func(tx pgx.Tx) error {
			_, err := tx.Exec(background, insertSQL, name, w.name, n)
			check(err)
			expect("the count in the transaction", count(n), 1)
			return nil
		}))
		w.acknowledge(int64(n))
		err := conn.BeginFunc(background, func(tx pgx.Tx) error {
			_, err := tx.Exec(background, insertSQL, name, w.name, -n)
			check(err)
			_, err = tx.Exec(background, "select 1 / $1::int", 0)
			return err
		})
		expect("the error of a division", hasCode(err, "22012"), true)
		expect("what was rolled back", count(-n), 0)
		expect("the last commit", count(n), 1)
		checkTypes(conn)
		batch := &pgx.Batch{}
		for i := 0; i < 5; i++ {
			batch.Queue(insertSQL, name, w.name, many*n+i)
		}
		check(conn.SendBatch(background, batch).Close())
		for i := 0; i < 5; i++ {
			w.acknowledge(int64(many*n + i))
		}
		w.look(conn)
	}
}

func copyRowsIn(w *Worker) {
	conn := connect()
	for w.next() {
		numbers := w.copied()
		_, err := conn.CopyFrom(background, pgx.Identifier{"matrix_entry"}, []string{"driver", "worker", "n"},
			pgx.CopyFromSlice(len(numbers), func(i int) ([]interface{}, error) {
				return []interface{}{name, w.name, numbers[i]}, nil
			}))
		check(err)
		w.acknowledge(numbers...)
		var out, wanted bytes.Buffer
		_, err = conn.PgConn().CopyTo(background, &out, fmt.Sprintf(
			"copy (select n from matrix_entry where driver = '%s' and worker = '%s' and n >= %d order by n) to stdout", name, w.name, numbers[0]))
		check(err)
		for _, n := range numbers {
			fmt.Fprintln(&wanted, n)
		}
		expect("what COPY gives back", out.String(), wanted.String())
		w.look(conn)
	}
}

func notify(w *Worker) {
	listener, conn := connect(), connect()
	_, err := listener.Exec(background, "listen \""+name+"\"")
	check(err)
	for w.next() {
		_, err = conn.Exec(background, "select pg_notify($1, $2)", name, strconv.Itoa(w.Rounds))
		check(err)
		// a wait that is given up by its deadline leaves the connection usable
		limited, done := context.WithTimeout(background, notifyPatience)
		got, err := listener.WaitForNotification(limited)
		done()
		if pgconn.Timeout(err) {
			w.Lost++
		} else {
			check(err)
			expect("the notification", got.Payload, strconv.Itoa(w.Rounds))
		}
		w.look(listener)
	}
}

func cancel(w *Worker) {
	conn := connect()
	for w.next() {
		failed := make(chan error, 1)
		go func() {
			time.Sleep(cancelAfter)
			failed <- conn.PgConn().CancelRequest(background)
		}()
		_, err := conn.Exec(background, "select pg_sleep(5)")
		if !hasCode(err, "57014") {
			panic(fmt.Errorf("the cancel did not arrive: %v", err))
		}
		check(<-failed)
		w.look(conn)
	}
}

func logins(w *Worker) {
	for w.next() {
		conn := connect()
		_, err := conn.Exec(background, insertSQL, name, w.name, w.Rounds)
		check(err)
		w.acknowledge(int64(w.Rounds))
		w.look(conn)
		check(conn.Close(background))
	}
}

func main() {
	run(map[string]func(*Worker){
		"transactions": transactions, "copy": copyRowsIn, "notify": notify, "cancel": cancel, "logins": logins})
}
