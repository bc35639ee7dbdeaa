// SPDX-License-Identifier: Apache-2.0
//
// HTTPS servers with certificates of every kind, made when the test runs. The certificate authority is the test's own, so
// that nothing on the machine trusts it but what is given its file.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

namespace spillway::testing {

template <auto function>
struct OpensslDeleter {
  template <class T>
  void operator()(T* object) const noexcept {
    function(object);
  }
};
using OpensslKey = std::unique_ptr<EVP_PKEY, OpensslDeleter<EVP_PKEY_free>>;
using OpensslCertificate = std::unique_ptr<X509, OpensslDeleter<X509_free>>;
using OpensslContext = std::unique_ptr<SSL_CTX, OpensslDeleter<SSL_CTX_free>>;
using OpensslSession = std::unique_ptr<SSL, OpensslDeleter<SSL_free>>;

/// A certificate and its key. Without an issuer it is signed by itself.
class Certificate {
 public:
  struct Options {
    std::string subject = "127.0.0.1";
    std::string names = "IP:127.0.0.1";  ///< subjectAltName
    bool is_authority = false;
    std::time_t begins_s = -3600;  ///< from now
    std::time_t ends_s = 3600;
  };

  explicit Certificate(const Options& options, const Certificate* issuer = nullptr)
      : key_(EVP_EC_gen("P-256")), certificate_(X509_new()) {
    static std::atomic<long> serial{1};
    X509* const made = certificate_.get();
    X509_set_version(made, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(made), serial.fetch_add(1));
    X509_gmtime_adj(X509_getm_notBefore(made), options.begins_s);
    X509_gmtime_adj(X509_getm_notAfter(made), options.ends_s);
    X509_set_pubkey(made, key_.get());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(options.subject.c_str()), -1,
                               -1, 0);
    const Certificate& signer = issuer == nullptr ? *this : *issuer;
    X509_set_issuer_name(made, X509_get_subject_name(signer.certificate_.get()));
    extend(signer, NID_basic_constraints, options.is_authority ? "critical,CA:TRUE" : "CA:FALSE");
    extend(signer, NID_subject_alt_name, options.names);
    if (X509_sign(made, signer.key_.get(), EVP_sha256()) == 0) {
      throw std::runtime_error("OpenSSL signs no certificate");
    }
  }

  EVP_PKEY* key() const { return key_.get(); }
  X509* get() const { return certificate_.get(); }
  /// For a file of trusted authorities.
  void write_pem(const std::string& path) const {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "w"),
                                                               &std::fclose);
    if (file == nullptr || PEM_write_X509(file.get(), get()) != 1) {
      throw std::runtime_error("cannot write " + path);
    }
  }

 private:
  void extend(const Certificate& signer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, signer.get(), get(), nullptr, nullptr, 0);
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    if (extension == nullptr || X509_add_ext(get(), extension, -1) != 1) {
      throw std::runtime_error("no such extension: " + value);
    }
    X509_EXTENSION_free(extension);
  }

  OpensslKey key_;
  OpensslCertificate certificate_;
};

/// Speaks HTTPS on a port of 127.0.0.1, one connection after the other; every request is answered by 200 and "{}".
class TlsServer {
 public:
  struct Options {
    int version_min = TLS1_2_VERSION;
    int version_max = TLS1_3_VERSION;
    const Certificate* intermediate = nullptr;  ///< sent with the certificate
    /// Of what it would say in the handshake; the rest never comes.
    std::size_t handshake_bytes_max = ~std::size_t{0};
    std::string plain_answer{};  ///< not empty: no TLS, this to whatever comes
  };

  explicit TlsServer(const Certificate& certificate) : TlsServer(certificate, Options{}) {}
  TlsServer(const Certificate& certificate, Options options)
      : options_(std::move(options)), context_(SSL_CTX_new(TLS_server_method())) {
    // What a server of another age would take: the client has to refuse, not its peer.
    SSL_CTX_set_security_level(context_.get(), 0);
    SSL_CTX_set_min_proto_version(context_.get(), options_.version_min);
    SSL_CTX_set_max_proto_version(context_.get(), options_.version_max);
    SSL_CTX_use_certificate(context_.get(), certificate.get());
    SSL_CTX_use_PrivateKey(context_.get(), certificate.key());
    if (options_.intermediate != nullptr) {
      SSL_CTX_add1_chain_cert(context_.get(), options_.intermediate->get());
    }
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    bind(listener_, reinterpret_cast<sockaddr*>(&address), bytes);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &bytes);
    port_ = ntohs(address.sin_port);
    listen(listener_, 16);
    thread_ = std::thread([this] { accept_all(); });
  }
  TlsServer(const TlsServer&) = delete;
  TlsServer& operator=(const TlsServer&) = delete;
  ~TlsServer() {
    shutdown(listener_, SHUT_RDWR);
    {
      const std::scoped_lock lock(mutex_);
      is_stopping_ = true;
      if (connection_ >= 0) shutdown(connection_, SHUT_RDWR);
    }
    thread_.join();
    close(listener_);
  }

  std::uint16_t port() const { return port_; }
  std::string origin(std::string_view host = "127.0.0.1") const {
    return "https://" + std::string(host) + ":" + std::to_string(port_);
  }
  /// All bytes that came, as they were on the wire.
  std::string wire() const {
    const std::scoped_lock lock(mutex_);
    return wire_;
  }
  /// All bytes that came once the handshake was over, deciphered.
  std::string received() const {
    const std::scoped_lock lock(mutex_);
    return received_;
  }
  std::size_t connections() const {
    const std::scoped_lock lock(mutex_);
    return connections_;
  }
  /// Of the last handshake that was completed: "TLSv1.3"; empty: none was.
  std::string version() const {
    const std::scoped_lock lock(mutex_);
    return version_;
  }

 private:
  void accept_all() {
    while (true) {
      const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (descriptor < 0) return;
      {
        const std::scoped_lock lock(mutex_);
        if (!is_stopping_) {
          connection_ = descriptor;
          ++connections_;
        }
      }
      serve(descriptor);
      const std::scoped_lock lock(mutex_);
      connection_ = -1;
      close(descriptor);
    }
  }

  // The wire is ours and not OpenSSL's, so that what is on it can be looked at, and held back.
  void serve(int descriptor) {
    const OpensslSession session(SSL_new(context_.get()));
    BIO* const in = BIO_new(BIO_s_mem());
    BIO* const out = BIO_new(BIO_s_mem());
    SSL_set_bio(session.get(), in, out);
    SSL_set_accept_state(session.get());
    std::size_t handshake_bytes_left = options_.handshake_bytes_max;
    std::string request;
    for (std::array<char, 4096> piece{};;) {
      const ssize_t came = recv(descriptor, piece.data(), piece.size(), 0);
      if (came <= 0) return;
      {
        const std::scoped_lock lock(mutex_);
        wire_.append(piece.data(), static_cast<std::size_t>(came));
      }
      if (!options_.plain_answer.empty()) {
        send(descriptor, options_.plain_answer.data(), options_.plain_answer.size(), MSG_NOSIGNAL);
        return;
      }
      BIO_write(in, piece.data(), static_cast<int>(came));
      if (SSL_do_handshake(session.get()) == 1) {
        for (int got = 0; (got = SSL_read(session.get(), piece.data(), piece.size())) > 0;) {
          request.append(piece.data(), static_cast<std::size_t>(got));
        }
        const std::scoped_lock lock(mutex_);
        version_ = SSL_get_version(session.get());
      }
      answer(session.get(), request);
      for (int given = 0; (given = BIO_read(out, piece.data(), piece.size())) > 0;) {
        const auto bytes = std::min(static_cast<std::size_t>(given), handshake_bytes_left);
        if (options_.handshake_bytes_max != ~std::size_t{0}) handshake_bytes_left -= bytes;
        if (send(descriptor, piece.data(), bytes, MSG_NOSIGNAL) < 0) return;
      }
    }
  }
  // Requests of tests are whole when their head and their Content-Length are there.
  void answer(SSL* session, std::string& request) {
    const std::size_t head = request.find("\r\n\r\n");
    if (head == std::string::npos) return;
    const std::size_t at = request.find("Content-Length: ");
    const std::size_t body = at < head ? std::stoul(request.substr(at + 16, 10)) : 0;
    if (request.size() < head + 4 + body) return;
    static constexpr std::string_view text =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    {
      const std::scoped_lock lock(mutex_);
      received_ += request;
    }
    request.clear();
    SSL_write(session, text.data(), static_cast<int>(text.size()));
  }

  const Options options_;
  const OpensslContext context_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  mutable std::mutex mutex_;
  bool is_stopping_ = false;
  int connection_ = -1;
  std::string wire_;
  std::string received_;
  std::string version_;
  std::size_t connections_ = 0;
  std::thread thread_;
};

}  // namespace spillway::testing
