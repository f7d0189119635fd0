// Apache HttpClient 4 with its MultipartEntityBuilder: as it is by default, STRICT, or with names in UTF-8, RFC6532.
import java.io.File;
import java.io.FileInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.http.HttpEntity;
import org.apache.http.client.config.RequestConfig;
import org.apache.http.client.methods.HttpGet;
import org.apache.http.client.methods.HttpPost;
import org.apache.http.entity.ContentType;
import org.apache.http.entity.mime.HttpMultipartMode;
import org.apache.http.entity.mime.MultipartEntityBuilder;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.util.EntityUtils;
import org.apache.http.util.VersionInfo;

public class Apache4 {
    static final CloseableHttpClient CLIENT = HttpClients.createDefault();

    static HttpEntity form(String mode, HttpMultipartMode names, String[] words) throws Exception {
        MultipartEntityBuilder form = MultipartEntityBuilder.create().setMode(names);
        for (int at = 4; at < words.length; at += 4) {
            String name = words[at + 1];
            if (words[at].equals("field")) {
                String type = words[at + 3].isEmpty() ? "text/plain" : words[at + 3];
                form.addTextBody(name, words[at + 2], ContentType.create(type, StandardCharsets.UTF_8));
            } else if (mode.equals("stream")) {
                form.addBinaryBody(name, new FileInputStream(words[at + 2]), ContentType.DEFAULT_BINARY, words[at + 3]);
            } else {
                form.addBinaryBody(name, new File(words[at + 2]), ContentType.DEFAULT_BINARY, words[at + 3]);
            }
        }
        return form.build();
    }

    static int send(HttpMultipartMode names, String[] words) throws Exception {
        HttpPost post = new HttpPost(words[1]);
        post.setConfig(RequestConfig.custom().setExpectContinueEnabled(words[0].equals("expect")).build());
        post.setEntity(form(words[0], names, words));
        return CLIENT.execute(post, answer -> {
            EntityUtils.consume(answer.getEntity());
            return answer.getStatusLine().getStatusCode();
        });
    }

    static int fetch(String url, String save) throws Exception {
        return CLIENT.execute(new HttpGet(url), answer -> {
            Files.write(Path.of(save), EntityUtils.toByteArray(answer.getEntity()));
            return answer.getStatusLine().getStatusCode();
        });
    }

    public static void main(String[] arguments) throws Exception {
        HttpMultipartMode names = HttpMultipartMode.valueOf(arguments[0]);
        System.out.println(VersionInfo.loadVersionInfo("org.apache.http.client", null).getRelease());
        List<String> job = Files.readAllLines(Path.of(arguments[1]));
        for (String line : job) {
            String[] words = line.split("\t", -1);
            try {
                System.out.println(send(names, words) + " " + fetch(words[2], words[3]));
            } catch (Exception error) {
                System.out.println(error.toString().replace('\n', ' '));
            }
        }
    }
}
