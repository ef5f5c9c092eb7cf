//! stub
/// stub
pub async fn serve(_s: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static, _home: std::path::PathBuf) {}
