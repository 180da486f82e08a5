"""What people look at: tables and progress on the terminal, figures in files."""
