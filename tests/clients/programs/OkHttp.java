// OkHttp with its MultipartBody, in chunks if a part does not tell its length.
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import okhttp3.MediaType;
import okhttp3.MultipartBody;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;
import okhttp3.internal.Version;
import okio.BufferedSink;
import okio.Okio;
import okio.Source;

public class OkHttp {
    static final OkHttpClient CLIENT = new OkHttpClient();
    static final MediaType BINARY = MediaType.parse("application/octet-stream");

    static RequestBody withoutLength(File file) {
        return new RequestBody() {
            @Override public MediaType contentType() { return BINARY; }
            @Override public void writeTo(BufferedSink sink) throws java.io.IOException {
                try (Source source = Okio.source(file)) { sink.writeAll(source); }
            }
        };
    }

    static int send(String[] words) throws Exception {
        MultipartBody.Builder form = new MultipartBody.Builder().setType(MultipartBody.FORM);
        for (int at = 4; at < words.length; at += 4) {
            String name = words[at + 1];
            File file = new File(words[at + 2]);
            if (words[at].equals("file")) {
                boolean stream = words[0].equals("stream");
                RequestBody body = stream ? withoutLength(file) : RequestBody.create(BINARY, file);
                form.addFormDataPart(name, words[at + 3], body);
            } else if (words[at + 3].isEmpty()) {
                form.addFormDataPart(name, words[at + 2]);
            } else {
                form.addFormDataPart(name, null, RequestBody.create(MediaType.parse(words[at + 3]), words[at + 2]));
            }
        }
        Request.Builder request = new Request.Builder().url(words[1]).post(form.build());
        if (words[0].equals("expect")) request.header("Expect", "100-continue");
        try (Response answer = CLIENT.newCall(request.build()).execute()) {
            return answer.code();
        }
    }

    static int fetch(String url, String save) throws Exception {
        try (Response answer = CLIENT.newCall(new Request.Builder().url(url).build()).execute()) {
            Files.write(Path.of(save), answer.body().bytes());
            return answer.code();
        }
    }

    public static void main(String[] arguments) throws Exception {
        System.out.println(Version.userAgent().replace("okhttp/", ""));
        List<String> job = Files.readAllLines(Path.of(arguments[0]));
        for (String line : job) {
            String[] words = line.split("\t", -1);
            try {
                System.out.println(send(words) + " " + fetch(words[2], words[3]));
            } catch (Exception error) {
                System.out.println(error.toString().replace('\n', ' '));
            }
        }
        System.exit(0); // its pool would keep the process for a minute
    }
}
