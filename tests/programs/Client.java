import java.io.DataInputStream;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** Requests by Java's own HTTP client, which does not block, and a stream over a plain socket, which does. */
public class Client {
    public static void main(String[] args) throws Exception {
        String address = args[1];
        switch (args[0]) {
            case "http1" -> requests(address, HttpClient.Version.HTTP_1_1);
            case "http2" -> requests(address, HttpClient.Version.HTTP_2);
            case "socket" -> socket(address);
            default -> throw new IllegalArgumentException("http1, http2 or socket, not " + args[0]);
        }
    }

    static byte[] message(int number) {
        byte[] bytes = new byte[1 + (int) ((long) number * number * 97 % 300_000)];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) (i * 31 + number);
        }
        return bytes;
    }

    static void requests(String address, HttpClient.Version version) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(version).build();
        MessageDigest whole = MessageDigest.getInstance("SHA-256");
        int count = 0;
        for (int round = 0; round < 20; round++) {
            List<CompletableFuture<HttpResponse<byte[]>>> answers = new ArrayList<>();
            for (int i = 0; i < 8; i++) {
                byte[] body = message(round * 8 + i);
                HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + address + "/"))
                        .POST(HttpRequest.BodyPublishers.ofByteArray(body)).build();
                answers.add(client.sendAsync(request, HttpResponse.BodyHandlers.ofByteArray()));
            }
            for (CompletableFuture<HttpResponse<byte[]>> answer : answers) {
                HttpResponse<byte[]> response = answer.get();
                if (response.statusCode() != 200) {
                    throw new IllegalStateException("status " + response.statusCode());
                }
                whole.update(response.body());
                count++;
            }
        }
        System.out.println(count + " answers, " + HexFormat.of().formatHex(whole.digest()));
    }

    static void socket(String address) throws Exception {
        String[] parts = address.split(":");
        try (Socket socket = new Socket(parts[0], Integer.parseInt(parts[1]))) {
            int total = 0;
            for (int i = 0; i < 200; i++) {
                total += message(i).length;
            }
            // One thread writes while the other is in a blocking read.
            Thread writer = new Thread(() -> {
                try {
                    for (int i = 0; i < 200; i++) {
                        socket.getOutputStream().write(message(i));
                    }
                    socket.shutdownOutput();
                } catch (Exception error) {
                    error.printStackTrace();
                    System.exit(1);
                }
            });
            writer.start();
            byte[] got = new byte[total];
            new DataInputStream(socket.getInputStream()).readFully(got);
            writer.join();
            byte[] sum = MessageDigest.getInstance("SHA-256").digest(got);
            System.out.println(total + " bytes, " + HexFormat.of().formatHex(sum));
        }
    }
}
