// Apache HttpClient 5 with its MultipartEntityBuilder as it is by default.
import java.io.File;
import java.io.FileInputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.apache.hc.client5.http.classic.methods.HttpGet;
import org.apache.hc.client5.http.classic.methods.HttpPost;
import org.apache.hc.client5.http.config.RequestConfig;
import org.apache.hc.client5.http.entity.mime.MultipartEntityBuilder;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.HttpEntity;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.util.VersionInfo;

public class Apache5 {
    static final CloseableHttpClient CLIENT = HttpClients.createDefault();

    static HttpEntity form(String mode, String[] words) throws Exception {
        MultipartEntityBuilder form = MultipartEntityBuilder.create();
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

    static int send(String[] words) throws Exception {
        HttpPost post = new HttpPost(words[1]);
        post.setConfig(RequestConfig.custom().setExpectContinueEnabled(words[0].equals("expect")).build());
        post.setEntity(form(words[0], words));
        return CLIENT.execute(post, answer -> {
            EntityUtils.consume(answer.getEntity());
            return answer.getCode();
        });
    }

    static int fetch(String url, String save) throws Exception {
        return CLIENT.execute(new HttpGet(url), answer -> {
            Files.write(Path.of(save), EntityUtils.toByteArray(answer.getEntity()));
            return answer.getCode();
        });
    }

    public static void main(String[] arguments) throws Exception {
        ClassLoader loader = CLIENT.getClass().getClassLoader();
        System.out.println(VersionInfo.loadVersionInfo("org.apache.hc.client5", loader).getRelease());
        List<String> job = Files.readAllLines(Path.of(arguments[0]));
        for (String line : job) {
            String[] words = line.split("\t", -1);
            try {
                System.out.println(send(words) + " " + fetch(words[2], words[3]));
            } catch (Exception error) {
                System.out.println(error.toString().replace('\n', ' '));
            }
        }
    }
}
