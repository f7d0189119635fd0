// System.Net.Http of Mono: HttpClient with a MultipartFormDataContent.
using System;
using System.IO;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Reflection;
using System.Text;

static class Program
{
    static readonly HttpClient Client = new HttpClient(new HttpClientHandler { UseProxy = false });

    static int Send(string mode, string url, string[] words)
    {
        var form = new MultipartFormDataContent();
        for (int at = 4; at < words.Length; at += 4)
        {
            if (words[at] == "file")
                form.Add(new StreamContent(File.OpenRead(words[at + 2])), words[at + 1], words[at + 3]);
            else if (words[at + 3] == "")
                form.Add(new StringContent(words[at + 2]), words[at + 1]);
            else
                form.Add(new StringContent(words[at + 2], Encoding.UTF8, words[at + 3]), words[at + 1]);
        }
        var request = new HttpRequestMessage(HttpMethod.Post, url) { Content = form };
        request.Headers.TransferEncodingChunked = mode == "stream";
        request.Headers.ExpectContinue = mode == "expect";
        return (int)Client.SendAsync(request).Result.StatusCode;
    }

    static void Main(string[] arguments)
    {
        var runtime = Type.GetType("Mono.Runtime").GetMethod("GetDisplayName", BindingFlags.NonPublic | BindingFlags.Static);
        Console.WriteLine(((string)runtime.Invoke(null, null)).Split(' ')[0]);
        foreach (var line in File.ReadAllLines(arguments[0]))
        {
            var words = line.Split('\t');
            try
            {
                var status = Send(words[0], words[1], words);
                var answer = Client.GetAsync(words[2]).Result;
                File.WriteAllBytes(words[3], answer.Content.ReadAsByteArrayAsync().Result);
                Console.WriteLine("{0} {1}", status, (int)answer.StatusCode);
            }
            catch (Exception error)
            {
                Console.WriteLine(error.GetBaseException().Message.Replace('\n', ' '));
            }
        }
    }
}
