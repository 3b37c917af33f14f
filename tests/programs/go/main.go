// A Go server and its client: HTTP/1.1, HTTP/2 without TLS, and a stream that both ends hand on with io.Copy, which is
// splice(2) where the kernel has it. The server's listeners are MPTCP, as Go makes them.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
)

func main() {
	log.SetFlags(0)
	switch os.Args[1] {
	case "serve":
		serve()
	case "http1":
		get(os.Args[2], false)
	case "http2":
		get(os.Args[2], true)
	case "copy":
		pour(os.Args[2])
	case "tls":
		secure(os.Args[2])
	default:
		log.Fatalf("serve, http1, http2, copy or tls, not %s", os.Args[1])
	}
}

func protocols(second bool) *http.Protocols {
	var all http.Protocols
	all.SetHTTP1(!second)
	all.SetUnencryptedHTTP2(second)
	return &all
}

func serve() {
	echo, err := net.Listen("tcp4", "0.0.0.0:9100")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for {
			connection, err := echo.Accept()
			if err != nil {
				log.Fatal(err)
			}
			go func() {
				defer connection.Close()
				io.Copy(connection, connection)
			}()
		}
	}()
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client will say so
		}
		w.Write(body)
	}
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	server := http.Server{Addr: "0.0.0.0:8083", Handler: http.HandlerFunc(answer), Protocols: &both}
	log.Fatal(server.ListenAndServe())
}

// Bytes of a request, by its number.
func message(number int) []byte {
	bytes := make([]byte, 1+number*number*97%300_000)
	for i := range bytes {
		bytes[i] = byte(i*31 + number)
	}
	return bytes
}

func get(address string, second bool) {
	client := http.Client{Transport: &http.Transport{Protocols: protocols(second), MaxIdleConnsPerHost: 8}}
	const workers, requests = 8, 40
	sums := make([][32]byte, workers*requests)
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for request := range requests {
				number := worker*requests + request
				answer, err := client.Post("http://"+address+"/", "application/octet-stream", bytes.NewReader(message(number)))
				if err != nil {
					log.Fatal(err)
				}
				body, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || answer.StatusCode != 200 || !bytes.Equal(body, message(number)) {
					log.Fatalf("request %d: %d, %d bytes, %v", number, answer.StatusCode, len(body), err)
				}
				sums[number] = sha256.Sum256(body)
			}
		})
	}
	all.Wait()
	whole := sha256.New()
	for _, sum := range sums {
		whole.Write(sum[:])
	}
	fmt.Printf("%d answers, %x\n", len(sums), whole.Sum(nil))
}

// The client's own io.Copy goes through a pair of connections to itself, so that it splices too.
func pour(address string) {
	out, err := net.Dial("tcp4", address)
	if err != nil {
		log.Fatal(err)
	}
	local, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		from, err := local.Accept()
		if err != nil {
			log.Fatal(err)
		}
		if _, err := io.Copy(out, from); err != nil {
			log.Fatal(err)
		}
		out.(*net.TCPConn).CloseWrite()
	}()
	to, err := net.Dial("tcp4", local.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for number := range 400 {
			if _, err := to.Write(message(number)); err != nil {
				log.Fatal(err)
			}
		}
		to.(*net.TCPConn).CloseWrite()
	}()
	whole := sha256.New()
	count, err := io.Copy(whole, out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes, %x\n", count, whole.Sum(nil))
}

// crypto/tls never asks the kernel to encrypt. This asks by hand, as programs do that bring a TLS of their own for that, and
// goes on whatever the answer is.
func secure(address string) {
	const TCP_ULP = 31
	plain, err := net.Dial("tcp4", address)
	if err != nil {
		log.Fatal(err)
	}
	raw, err := plain.(*net.TCPConn).SyscallConn()
	if err != nil {
		log.Fatal(err)
	}
	raw.Control(func(fd uintptr) { syscall.SetsockoptString(int(fd), syscall.IPPROTO_TCP, TCP_ULP, "tls") })
	connection := tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(connection, "GET /large HTTP/1.1\r\nHost: tls\r\n\r\n"); err != nil {
		log.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		log.Fatal(err)
	}
	whole := sha256.New()
	count, err := io.Copy(whole, answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes, %x\n", answer.Status, count, whole.Sum(nil))
}
